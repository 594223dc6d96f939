//! Signals to pressures, score, states with hysteresis, peers, confidence and reasons.
#![forbid(unsafe_code)]
