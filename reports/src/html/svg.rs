//! The few shapes that the pictures are made of.
//!
//! Job: SVG elements with escaped text. Invariant: no text from outside reaches the page unescaped,
//! and every shape with something to tell carries it as a hover title. Left out: where shapes go.

use std::fmt::Write as _;

/// Text that is only text, in elements and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // No control character is allowed in a page, and none means anything here.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// A picture in the making; lengths are in its own units, one of which is about one pixel.
#[derive(Debug, Default)]
pub struct Svg {
    body: String,
}

/// Which end of a text its position names.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), title: &str) {
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{height:.1}" rx="2">{}</rect>"#,
            width.max(0.8),
            hover(title)
        );
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, title: &str) {
        let _ = write!(
            self.body,
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}">{}</circle>"#,
            hover(title)
        );
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str, title: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}{}</text>"#,
            escape(text),
            hover(title)
        );
    }

    /// The whole element, with a name for those who cannot see it.
    #[must_use]
    pub fn end(self, width: f64, height: f64, name: &str) -> String {
        let name = escape(name);
        format!(r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{name}">{}</svg>"#, self.body)
    }
}

fn hover(title: &str) -> String {
    if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) }
}
