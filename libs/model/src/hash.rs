//! The one hash whose values are promises: which partition a cell lies in, and which servers a percentage enforces.
//!
//! It is written out here because both answers must be the same in every version, on every platform, for as long as a
//! log lives; a library's hash may change between releases. FNV-1a over the bytes, then the finaliser of MurmurHash3,
//! which spreads FNV's weak high bits. Not for hash tables and not against adversaries.

/// The stable 64-bit hash of a sequence of strings; the boundary between two strings counts.
pub fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The partition of the sample log that holds a cell. `partitions` must be positive.
pub fn partition_of(cell: &str, partitions: u32) -> u32 {
    (stable_hash(&[cell]) % u64::from(partitions)) as u32
}

/// Where a server stands on the way to full enforcement, in `[0, 100)`: `enforce(p)` takes the servers below `p`.
pub fn enforcement_rank(cell: &str, server: &str) -> f64 {
    (stable_hash(&[cell, server]) >> 11) as f64 / (1u64 << 53) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        assert_eq!(stable_hash(&["default"]), stable_hash(&["default"]));
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
        let below_half = (0..10_000).filter(|i| enforcement_rank("eu-1", &format!("web-{i}")) < 50.0).count();
        assert!((4_700..5_300).contains(&below_half), "{below_half}");
    }
}
