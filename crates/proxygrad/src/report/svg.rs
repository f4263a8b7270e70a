//! SVG drawings of a few shapes, coloured by CSS classes.

use std::fmt::Write;

use super::html::text;

/// Style sheet of drawings, for light and dark mode.
pub(crate) const STYLE: &str = include_str!("drawing.css");

/// Drawing with a size in pixels and the origin at the upper left.
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    shapes: String,
    /// Alternative text.
    pub(crate) alt: String,
}

impl Drawing {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: String::new(), alt: String::new() }
    }

    pub(crate) fn line(&mut self, class: &str, [x, y]: [f64; 2], [to_x, to_y]: [f64; 2]) {
        let _ = write!(self.shapes, r#"<line class="{class}" x1="{x:.1}" y1="{y:.1}" x2="{to_x:.1}" y2="{to_y:.1}"/>"#);
    }

    pub(crate) fn rectangle(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2]) {
        let shape = format!(r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#);
        self.shapes.push_str(&shape);
    }

    /// A dot with a tooltip.
    pub(crate) fn dot(&mut self, class: &str, [x, y]: [f64; 2], tooltip: &str) {
        let title = text(tooltip);
        let _ = write!(
            self.shapes,
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="2.6"><title>{title}</title></circle>"#
        );
    }

    pub(crate) fn path(&mut self, class: &str, points: &[[f64; 2]]) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.shapes, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// A text whose `anchor` (start, middle, end) is at the point.
    pub(crate) fn label(&mut self, anchor: &str, [x, y]: [f64; 2], label: &str) {
        let label = text(label);
        let _ = write!(self.shapes, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{label}</text>"#);
    }

    /// The drawing as part of a page with its style.
    pub(crate) fn html(&self) -> String {
        self.svg("", "")
    }

    /// The drawing as a standalone file.
    pub(crate) fn file(&self) -> String {
        let ground = format!("<style>{STYLE}</style><rect class=\"ground\" width=\"100%\" height=\"100%\"/>");
        self.svg(" xmlns=\"http://www.w3.org/2000/svg\"", &ground)
    }

    fn svg(&self, attributes: &str, ground: &str) -> String {
        let Self { width, height, shapes, alt } = self;
        let alt = text(alt);
        format!(
            "<svg{attributes} role=\"img\" aria-label=\"{alt}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\">{ground}{shapes}</svg>"
        )
    }
}

/// Linear map from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) from: [f64; 2],
    pub(crate) to: [f64; 2],
}

impl Scale {
    /// The pixel of a value, clamped to the range.
    pub(crate) fn at(self, value: f64) -> f64 {
        let [low, high] = self.from;
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        self.to[0] + share * (self.to[1] - self.to[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_keeps_to_its_ends() {
        let scale = Scale { from: [-1.0, 1.0], to: [100.0, 0.0] };
        assert_eq!([-5.0, -1.0, 0.5, 9.0].map(|value| scale.at(value)), [100.0, 100.0, 25.0, 0.0]);
    }

    #[test]
    fn a_drawing_says_what_it_shows() {
        let mut drawing = Drawing::new(10.0, 20.0);
        drawing.label("end", [1.0, 2.0], "a < b");
        drawing.dot("c0", [1.0, 2.0], "\"x\"");
        drawing.alt = "so & so".into();
        let html = drawing.html();
        assert!(html.contains("aria-label=\"so &amp; so\"") && html.contains("a &lt; b</text>"), "{html}");
    }
}
