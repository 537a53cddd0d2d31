//! The SVG shapes of the charts.
//!
//! Job: SVG elements. Invariants: a hover title belongs to a group and is written once for all its shapes; lengths are
//! rounded to units; styles, including text anchors, are in the style sheet, which keeps a page of a hundred charts
//! small. Left out: layout.

use maud::{Markup, PreEscaped, html};

/// A chart under construction; a unit of length is about one pixel.
#[derive(Debug, Default)]
pub struct Svg {
    body: String,
}

impl Svg {
    /// Shapes that share a class and a hover title (either may be empty) and are moved down by `y`.
    pub fn group(&mut self, class: &str, y: f64, title: &str, draw: impl FnOnce(&mut Self)) {
        self.body.push_str(&format!("<g{}", attribute(class)));
        if y > 0.0 {
            self.body.push_str(&format!(" transform=\"translate(0 {y:.0})\""));
        }
        self.body.push('>');
        if !title.is_empty() {
            self.push(&html! { title { (title) } });
        }
        draw(self);
        self.body.push_str("</g>");
    }

    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let (width, y) = (width.max(1.0), if y == 0.0 { String::new() } else { format!(" y=\"{y:.0}\"") });
        self.body.push_str(&format!(
            "<rect{} x=\"{x:.0}\"{y} width=\"{width:.0}\" height=\"{height:.0}\"/>",
            attribute(class)
        ));
    }

    /// A path with `steps` as its `d` attribute; nothing if there are none.
    pub fn path(&mut self, class: &str, steps: &str) {
        if !steps.is_empty() {
            self.body.push_str(&format!("<path{} d=\"{steps}\"/>", attribute(class)));
        }
    }

    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let class = attribute(class);
        self.body.push_str(&format!("<circle{class} cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{radius}\"/>"));
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let y = if y == 0.0 { String::new() } else { format!(" y=\"{y:.0}\"") };
        self.body.push_str(&format!("<text{} x=\"{x:.0}\"{y}>", attribute(class)));
        self.push(&html! { (text) });
        self.body.push_str("</text>");
    }

    fn push(&mut self, shape: &Markup) {
        self.body.push_str(&shape.0);
    }

    /// The finished element, with an accessible name.
    #[must_use]
    pub fn end(self, width: f64, height: f64, name: &str) -> Markup {
        html! {
            svg viewBox=(format!("0 0 {width:.0} {height:.0}")) role="img" aria-label=(name) { (PreEscaped(self.body)) }
        }
    }
}

fn attribute(class: &str) -> String {
    if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") }
}

/// The steps of a vertical line.
#[must_use]
pub fn down(x: f64, from: f64, to: f64) -> String {
    format!("M{x:.0} {from:.0}V{to:.0}")
}
