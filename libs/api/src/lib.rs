//! HTTP: routes, OpenAPI, problem details, watch.
#![forbid(unsafe_code)]
