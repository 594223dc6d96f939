import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.Instant;

/**
 * A plain HTTP service that knows nothing of telemetry: the Java agent in front of it does the sending. It calls itself,
 * because the agent has no http.server.request.duration to report before somebody asks for something.
 *
 * <p>Run time in seconds by RUN_SECONDS; the agent is configured by its own OTEL_* variables.
 */
public final class HelloHeadroom {
    public static void main(String[] arguments) throws Exception {
        String seconds = System.getenv().getOrDefault("RUN_SECONDS", "60");
        Instant end = Instant.now().plus(Duration.ofSeconds(Long.parseLong(seconds)));

        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            // One path fails, so that the histogram carries both a good and a bad status.
            boolean broken = exchange.getRequestURI().getPath().equals("/broken");
            byte[] body = "hello, headroom\n".getBytes();
            exchange.sendResponseHeaders(broken ? 500 : 200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();

        String base = "http://" + InetAddress.getLoopbackAddress().getHostAddress() + ":" + server.getAddress().getPort();
        HttpClient client = HttpClient.newHttpClient();
        for (int call = 0; Instant.now().isBefore(end); call++) {
            URI uri = URI.create(base + (call % 10 == 9 ? "/broken" : "/hello"));
            client.send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.discarding());
            Thread.sleep(50);
        }
        server.stop(0);
        // The agent's shutdown hook sends the last export; the HTTP client's threads must not keep the process alive.
        System.exit(0);
    }
}
