//! A system without superservers.

use super::{Found, Inherited};

/// Nothing is ever inherited.
pub fn take() -> Found {
    Found { inherited: Inherited::Nothing, stderr_was_client: false }
}
