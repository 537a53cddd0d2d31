//! The few shapes that the pictures are made of.
//!
//! Job: SVG elements. Invariant: every shape with something to tell carries it as a hover title. Left out: where
//! shapes go.

use maud::{Markup, PreEscaped, html};

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

/// With one decimal.
fn n(length: f64) -> String {
    format!("{length:.1}")
}

impl Svg {
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), title: &str) {
        let width = width.max(0.8);
        self.push(&html! {
            rect class=(class) x=(n(x)) y=(n(y)) width=(n(width)) height=(n(height)) rx="2" { (hover(title)) }
        });
    }

    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(&html! { line class=(class) x1=(n(x1)) y1=(n(y1)) x2=(n(x2)) y2=(n(y2)) {} });
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, title: &str) {
        self.push(&html! { circle class=(class) cx=(n(x)) cy=(n(y)) r=(n(radius)) { (hover(title)) } });
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str, title: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(&html! { text class=(class) x=(n(x)) y=(n(y)) text-anchor=(anchor) { (text) (hover(title)) } });
    }

    fn push(&mut self, shape: &Markup) {
        self.body.push_str(&shape.0);
    }

    /// The whole element, with a name for those who cannot see it.
    #[must_use]
    pub fn end(self, width: f64, height: f64, name: &str) -> Markup {
        html! {
            svg viewBox=(format!("0 0 {width:.0} {height:.0}")) role="img" aria-label=(name) { (PreEscaped(self.body)) }
        }
    }
}

fn hover(title: &str) -> Markup {
    html! { @if !title.is_empty() { title { (title) } } }
}
