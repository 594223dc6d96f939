//! Our own metrics, traces and logs; /metrics, /livez and /readyz of every role.
#![forbid(unsafe_code)]
