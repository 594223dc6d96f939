//! Event time, panes, counter resets, histograms and lateness: samples in, one Arrow batch per cell and tick out.
#![forbid(unsafe_code)]
