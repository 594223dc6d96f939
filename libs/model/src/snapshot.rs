//! The published snapshot of a cell (placeholder, replaced below).
