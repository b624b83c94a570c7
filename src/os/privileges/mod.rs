//! Who is this process, once it has bound its ports?

#[cfg(unix)]
mod setuid;
#[cfg(unix)]
pub use setuid::{become_user, check_user};

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::{become_user, check_user};
