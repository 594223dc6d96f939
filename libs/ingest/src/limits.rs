//! The bounds of one request and of what a decoder remembers.
//!
//! Every bound refuses the new and is counted by its own reason; none of them makes a whole request fail, because a
//! sender with one absurd metric would then lose all the others. Sizes of bodies are not here: they are the
//! transport's, before and after [decompression](crate::decompress).

/// Bounds of a request and of the caches. All lengths are bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestLimits {
    /// Data points of a request. A summary counts for as many as it becomes: its count, its sum and its quantiles.
    pub points_per_request_max: usize,
    /// Distinct series of a request.
    pub series_per_request_max: usize,
    /// Distinct resources of a request.
    pub resources_per_request_max: usize,
    /// Attributes of a resource, or of a data point.
    pub attributes_max: usize,
    /// Length of an attribute's key.
    pub attribute_key_bytes_max: usize,
    /// Length of an attribute's value as text. A longer one of a resource is cut (command lines often are longer, and
    /// nothing is named by them); a point with a longer one is rejected, because cutting could merge two series.
    pub attribute_value_bytes_max: usize,
    /// Length of a server's, cell's, pool's or sender's name and of every alias.
    pub identity_bytes_max: usize,
    /// Length of a metric's name and of its unit.
    pub metric_name_bytes_max: usize,
    /// Arrays and maps inside each other in an attribute's value.
    pub nesting_max: usize,
    /// Buckets of a histogram point, or quantiles of a summary point.
    pub buckets_per_point_max: usize,
    /// Resources remembered between requests.
    pub cached_resources_max: usize,
    /// Series remembered between requests.
    pub cached_series_max: usize,
    /// Bytes of keys and texts remembered between requests, roughly a fifth of the memory they take.
    pub cached_bytes_max: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            points_per_request_max: 1_000_000,
            series_per_request_max: 200_000,
            resources_per_request_max: 100_000,
            attributes_max: 128,
            attribute_key_bytes_max: 256,
            attribute_value_bytes_max: 1024,
            identity_bytes_max: 255,
            metric_name_bytes_max: 512,
            nesting_max: 8,
            buckets_per_point_max: 512,
            cached_resources_max: 100_000,
            cached_series_max: 200_000,
            cached_bytes_max: 64 << 20,
        }
    }
}
