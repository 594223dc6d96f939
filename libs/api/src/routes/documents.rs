//! The index: every endpoint with a line to try it.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;

/// The page at `/`, made from the description of the API, so that the two cannot differ.
pub(crate) fn index_html(api: &OpenApi) -> String {
    let document = serde_json::to_value(api).unwrap_or_default();
    let mut rows = String::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let summary = operation["summary"].as_str().unwrap_or_default();
            let mut line = curl(&method.to_uppercase(), path);
            if !operation["security"].is_null() {
                line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
            }
            rows.push_str(&format!(
                "<tr><td>{}</td><td><code>{}</code></td><td>{}<br><code class=\"try\">{}</code></td></tr>\n",
                method.to_uppercase(),
                escape(path),
                escape(summary),
                escape(&line)
            ));
        }
    }
    PAGE.replace("{rows}", &rows)
}

fn curl(method: &str, path: &str) -> String {
    let address = format!("http://localhost:8080{}", path.replace("{server}", "SERVER").replace("{cell}", "CELL"));
    match (method, path) {
        (_, "/v1/watch") => format!("curl -N {address}"),
        (_, "/v1/policy:check") => {
            format!("curl {address} -H 'Content-Type: application/yaml' --data-binary @policy.yaml")
        }
        ("POST", _) => format!("curl {address} -H 'Content-Type: application/json' -d @request.json"),
        ("DELETE", _) => format!("curl -X DELETE '{address}?owner=you&reason=why'"),
        _ => format!("curl {address}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn html(page: String) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

const PAGE: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Headroom</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid #8884; padding: .4rem .6rem; vertical-align: top }
.try { opacity: .7; font-size: 13px }
</style></head>
<body><h1>Headroom</h1>
<p>How much more each server can take. <a href="/docs/">Try the API</a> · <a href="/openapi.json">openapi.json</a></p>
<table>
{rows}</table></body></html>
"#;
