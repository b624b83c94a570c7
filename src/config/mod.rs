//! The configuration: one table of keys, and what it makes of a file and a
//! command line.
//!
//! [`settings`] is data alone; [`keys`] put values into it; [`reader`] applies them,
//! the defaults first; [`options`] is what each part of the program gets of it;
//! [`source`] is where it comes from, to read it again. Each uses those before it.

pub mod key_file;
pub mod keys;
pub mod options;
pub mod reader;
pub mod settings;
pub mod source;
