//! Where load may go and the connection to it: loopback, HTTP/1.1 or gRPC, one request at a time.
//!
//! gRPC is spoken by hand: a unary call is a prefix of five bytes before the message and a status after the answer, and
//! the bytes are there already, so a client that encodes messages would only cost the core that it shares with the server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::report::Problem;

/// How requests are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// gRPC over HTTP/2, without TLS
    Grpc,
}

/// An address on this machine.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    path: String,
}

impl Target {
    /// Takes `http://` addresses of loopback with a port; refuses all others.
    pub fn parse(url: &str) -> Result<Self, Problem> {
        let uri: Uri = url.parse().map_err(|error| Problem::new(format!("{url}: {error}")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let ip = if host == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse::<IpAddr>() };
        match (uri.scheme_str(), ip, uri.port_u16()) {
            (Some("http"), Ok(ip), Some(port)) if ip.is_loopback() => {
                Ok(Self { address: SocketAddr::new(ip, port), path: uri.path().trim_end_matches('/').to_owned() })
            }
            _ => Err(Problem::new(format!("{url}: load goes to loopback only, as http://127.0.0.1:PORT[/path]"))),
        }
    }

    /// Opens a connection.
    pub async fn connect(&self, protocol: Protocol) -> Result<Connection, Problem> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Grpc(sender)
            }
        };
        Ok(Connection { sender, target: self.clone() })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.path))
    }
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken whole.
    Taken,
    /// Taken, with a partial success in the answer: some points were rejected.
    Partly,
    /// Not now: 429, 503, RESOURCE_EXHAUSTED, UNAVAILABLE.
    Busy,
    /// Anything else, with the HTTP or gRPC status.
    Failed(u16),
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    target: Target,
}

impl Connection {
    /// Sends an OTLP metrics request and waits for the whole answer.
    pub async fn export(&mut self, body: &[u8]) -> Result<Outcome, Problem> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                let request = self.target.request(Method::POST, "").header("host", "127.0.0.1");
                let request = request.header("content-type", "application/x-protobuf");
                sender.ready().await?;
                let answer = sender.send_request(request.body(Full::new(Bytes::copy_from_slice(body)))?).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                Ok(match status {
                    // An empty partial success may be there; it is two bytes and says that nothing was rejected.
                    status if status.is_success() && body.len() <= 2 => Outcome::Taken,
                    status if status.is_success() => Outcome::Partly,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Busy,
                    status => Outcome::Failed(status.as_u16()),
                })
            }
            Sender::Grpc(sender) => {
                let mut framed = BytesMut::with_capacity(body.len() + 5);
                framed.put_u8(0);
                framed.put_u32(body.len() as u32);
                framed.put_slice(body);
                let uri = format!(
                    "http://{}/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
                    self.target.address
                );
                let request = Request::builder().method(Method::POST).uri(uri);
                let request = request.header("content-type", "application/grpc").header("te", "trailers");
                sender.ready().await?;
                let answer = sender.send_request(request.body(Full::new(framed.freeze()))?).await?;
                let in_head = grpc_status(answer.headers());
                let collected = answer.into_body().collect().await?;
                let status = in_head.or_else(|| collected.trailers().and_then(grpc_status));
                Ok(match status {
                    Some(0) if collected.to_bytes().len() <= 7 => Outcome::Taken,
                    Some(0) => Outcome::Partly,
                    Some(8 | 14) => Outcome::Busy,
                    status => Outcome::Failed(status.unwrap_or(u16::MAX)),
                })
            }
        }
    }

    /// Reads `path` and gives the answer's status and head; the body is read to its end and dropped.
    pub async fn get(&mut self, path: &str) -> Result<StatusCode, Problem> {
        let Sender::Http1(sender) = &mut self.sender else {
            return Err(Problem::new("reads are spoken over HTTP/1.1".to_owned()));
        };
        let request = self.target.request(Method::GET, path).header("host", "127.0.0.1");
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        Ok(status)
    }

    /// Opens a stream of server-sent events and gives its body.
    pub async fn stream(&mut self, path: &str) -> Result<hyper::body::Incoming, Problem> {
        let Sender::Http1(sender) = &mut self.sender else {
            return Err(Problem::new("streams are followed over HTTP/1.1".to_owned()));
        };
        let request = self.target.request(Method::GET, path).header("host", "127.0.0.1");
        let request = request.header("accept", "text/event-stream");
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        if answer.status() != StatusCode::OK {
            return Err(Problem::new(format!("{path}: status {}", answer.status())));
        }
        Ok(answer.into_body())
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn load_goes_to_loopback_only() {
        for good in ["http://127.0.0.1:4318/v1/metrics", "http://localhost:1", "http://[::1]:80/", "http://127.8.8.8:1"]
        {
            assert!(Target::parse(good).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1:4318", "http://example.net:80", "https://127.0.0.1:1", "http://127.0.0.1", "x"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
