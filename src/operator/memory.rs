//! How much memory this process may have, by what its container says.

use std::fs::read_to_string;

/// Where the control group of a container shows its limit: version 2, and version 1.
const LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// Version 1 shows a number of this size where there is no limit.
const UNLIMITED: u64 = 1 << 60;

/// What buffers may have where nothing limits the process: as much as in a container of 1 GiB, in which the listeners that a
/// relay takes by default have the least that they need.
const BUFFERS_BYTES: u64 = 614 << 20;

/// Bytes that buffers may have by default: 60 % of the container's. The rest is for what there is without any bytes
/// under way, for what the kernel keeps of sockets, and for what an allocator does not give back.
pub(super) fn buffers_max() -> u64 {
    let limit = LIMITS
        .iter()
        .find_map(|path| limit(&read_to_string(path).ok()?));
    limit.map_or(BUFFERS_BYTES, share)
}

fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
}

fn share(bytes: u64) -> u64 {
    bytes / 10 * 6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::sessions_max;

    #[test]
    fn without_a_limit_the_listeners_of_the_default_capacity_fit() {
        assert_eq!(BUFFERS_BYTES >> 20, share(1 << 30) >> 20);
        let fitting = sessions_max(usize::try_from(BUFFERS_BYTES).unwrap());
        assert!(fitting >= 500, "{fitting}");
    }

    #[test]
    fn a_limit_is_read_of_either_version_and_none_is_none() {
        assert_eq!(limit("1073741824\n"), Some(1 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit(""), None);
    }

    #[test]
    fn buffers_have_the_larger_part_and_not_all() {
        assert_eq!(share(1000), 600);
        assert_eq!(share(1 << 30) >> 20, 614);
    }

    /// `docs/install.md` and the chart's values say so.
    #[test]
    fn a_listener_needs_two_mebibytes_of_the_limit() {
        let fitting = |limit| sessions_max(usize::try_from(share(limit)).expect("64 bits"));
        assert_eq!(fitting(1 << 30), 519);
        for capacity in [1, 351, 500, 10_000] {
            let limit = u64::try_from(capacity).expect("64 bits") << 21;
            assert!(fitting(limit) >= capacity, "{capacity}");
            assert!(fitting(limit) <= capacity + capacity / 20, "{capacity}");
        }
    }
}
