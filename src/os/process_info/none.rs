//! A system that is not asked.

use super::ProcessInfo;

/// Nothing is known.
pub(super) fn read() -> ProcessInfo {
    ProcessInfo::default()
}
