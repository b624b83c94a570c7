//! The configuration: one table of keys, which turns a file and a command line into
//! settings.
//!
//! [`settings`] is data alone. [`keys`] stores values in it. [`reader`] applies the
//! defaults, then the files and the command line; [`include`] finds the files. [`options`]
//! makes the options of each state machine, [`places`] tells the folders that are named.
//! [`source`] reloads. Each uses those before it.

pub mod include;
pub mod key_file;
pub mod keys;
pub mod options;
pub mod places;
pub mod reader;
pub mod settings;
pub mod source;
