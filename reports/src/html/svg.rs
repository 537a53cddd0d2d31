//! The few shapes that the pictures are made of.
//!
//! Job: SVG elements. Invariants: a hover title belongs to a group and is written once for all its shapes; lengths are
//! whole units; looks, anchors of texts among them, come from the style sheet, or a page of a hundred pictures would be
//! too heavy to open. Left out: where shapes go.

use maud::{Markup, PreEscaped, html};

/// A picture in the making; lengths are in its own units, one of which is about one pixel.
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

    /// Of `steps`, in the language of the `d` of a path; nothing if there are none.
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

    /// The whole element, with a name for those who cannot see it.
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

/// The steps of a line straight down.
#[must_use]
pub fn down(x: f64, from: f64, to: f64) -> String {
    format!("M{x:.0} {from:.0}V{to:.0}")
}
