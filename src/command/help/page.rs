//! A page of the manual. Owns its names; knows no other page.

/// One page. A small program does nothing but print it.
#[cfg_attr(not(feature = "operate"), allow(dead_code))]
pub struct Page {
    /// The word after `pegasus help`; none for the first page.
    pub name: &'static str,
    /// The section of the manual for man(1): 5 files, 7 matters, 8 commands.
    pub section: u8,
    /// One phrase.
    pub summary: &'static str,
    /// What it says.
    pub content: Content,
}

/// Where the text of a page comes from.
pub enum Content {
    /// A file.
    Text(&'static str),
    /// It is made from tables.
    Made(fn() -> String),
}

impl Page {
    /// A page from its file.
    pub const fn text_of(
        name: &'static str,
        section: u8,
        summary: &'static str,
        text: &'static str,
    ) -> Page {
        Page { name, section, summary, content: Content::Text(text) }
    }

    /// The page as a terminal shows it.
    pub fn text(&self) -> String {
        match self.content {
            Content::Text(text) => text.to_string(),
            Content::Made(make) => make(),
        }
    }

    /// Its name for man(1).
    #[cfg(feature = "operate")]
    pub fn man_name(&self) -> String {
        match self.name {
            "" => "pegasus".to_string(),
            "config" => "pegasus.conf".to_string(),
            name => format!("pegasus-{name}"),
        }
    }
}
