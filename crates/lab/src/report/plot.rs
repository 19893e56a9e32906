//! Plots as SVG text, to stand inside a page. Legends are HTML beside them, so that they never lie over a curve.

use plotters::prelude::*;

use super::html::escape;
use crate::bench::Spread;

/// One curve: points by what varies, each with its spread.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Spread)>,
}

/// What is drawn.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) curves: Vec<Curve>,
}

/// Size of the drawing; the page scales it to its width.
const SIZE: (u32, u32) = (760, 400);
/// Text that can still be read when the drawing is half as wide.
const TEXT: i32 = 17;
/// Colours that are told apart also by those who see few (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(120, 94, 60),
    RGBColor(0, 0, 0),
];

impl Plot {
    /// The figure as HTML: title, legend, drawing. What has no point that can be drawn says so.
    pub(super) fn html(&self) -> String {
        let entry = |(number, curve): (usize, &Curve)| {
            let RGBColor(r, g, b) = colour(number);
            format!("<li><span style=\"background:rgb({r},{g},{b})\"></span>{}</li>", escape(&curve.name))
        };
        let legend: String = self.curves.iter().enumerate().map(entry).collect();
        let drawing = self.svg().unwrap_or_else(|| "<p class=\"note\">There is nothing to draw.</p>".to_owned());
        format!(
            "<figure>\n<figcaption>{}</figcaption>\n<ul class=\"legend\">{legend}</ul>\n{drawing}\n</figure>\n",
            escape(&self.title)
        )
    }

    /// The drawing, both axes logarithmic. None where there is nothing above zero.
    fn svg(&self) -> Option<String> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).filter(|(x, y)| *x > 0.0 && y.low > 0.0);
        let x = bounds(points().map(|(x, _)| *x))?;
        let y = bounds(points().flat_map(|(_, y)| [y.low, y.high]))?;
        let mut text = String::new();
        self.draw(&mut text, x, y).ok()?;
        // The page says how large it is.
        Some(text.replacen(&format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1), "", 1))
    }

    fn draw(&self, text: &mut String, x: (f64, f64), y: (f64, f64)) -> Result<(), Box<dyn std::error::Error + '_>> {
        let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(30)
            .set_label_area_size(LabelAreaPosition::Bottom, 58)
            .set_label_area_size(LabelAreaPosition::Left, 92)
            .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
        chart
            .configure_mesh()
            .x_labels(6)
            .y_labels(8)
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .x_label_formatter(&|value| axis(*value))
            .y_label_formatter(&|value| axis(*value))
            .label_style(("sans-serif", TEXT))
            .axis_desc_style(("sans-serif", TEXT))
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .draw()?;
        for (number, curve) in self.curves.iter().enumerate() {
            let style = colour(number).stroke_width(2);
            let points = || curve.points.iter().filter(|(x, y)| *x > 0.0 && y.low > 0.0);
            chart.draw_series(LineSeries::new(points().map(|(x, y)| (*x, y.median)), style))?;
            chart.draw_series(points().map(|(x, y)| PathElement::new(vec![(*x, y.low), (*x, y.high)], style)))?;
            chart.draw_series(points().map(|(x, y)| Circle::new((*x, y.median), 3, colour(number).filled())))?;
        }
        root.present()?;
        drop(chart);
        drop(root);
        Ok(())
    }
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// From the power of ten below the least, so that the axis has a number to begin with, to a round number above the most; and
/// a little further, so that no point lies on the edge.
fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    const ROOM: f64 = 1.08;
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if !low.is_finite() || high <= 0.0 {
        return None;
    }
    let below = 10_f64.powf(low.log10().floor());
    let decade = 10_f64.powf(high.log10().floor());
    let above = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|round| *round >= high)?;
    Some((below / ROOM, above.max(below * 2.0) * ROOM))
}

/// A number on an axis, short.
fn axis(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        _ if value >= 1e4 => format!("{} k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f64) -> Spread {
        Spread { low: value * 0.9, median: value, high: value * 1.1, samples: 3 }
    }

    #[test]
    fn a_drawing_has_its_curves_and_units_and_no_size_of_its_own() {
        let points = vec![(1.0, point(5.0)), (1e6, point(5e6))];
        let curves = vec![Curve { name: "a < b".into(), points }];
        let plot = Plot { title: "Cost".into(), x: "ranges".into(), y: "ns".into(), curves };
        let html = plot.html();
        for wanted in ["<svg", "viewBox", "a &lt; b", "ranges", "ns", "1 M", "<polyline"] {
            assert!(html.contains(wanted), "no {wanted} in {html}");
        }
        assert!(!html.contains("width=\"760\" height=\"400\" viewBox"));
        super::super::html::check::assert_whole_and_alone(&html);
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let curves = vec![Curve { name: "a".into(), points: vec![(0.0, point(1.0))] }];
        let plot = Plot { title: "Cost".into(), x: "x".into(), y: "y".into(), curves };
        assert!(plot.html().contains("nothing to draw"));
    }

    #[test]
    fn axes_begin_at_a_power_of_ten_and_end_at_a_round_number() {
        let of = |values: &[f64]| bounds(values.iter().copied()).map(|(low, high)| (low * 1.08, high / 1.08));
        let near = |one: Option<(f64, f64)>, low: f64, high: f64| {
            one.is_some_and(|one| (one.0 / low - 1.0).abs() < 1e-9 && (one.1 / high - 1.0).abs() < 1e-9)
        };
        assert!(near(of(&[15.0, 61.0]), 10.0, 100.0) && near(of(&[10.0, 11.0]), 10.0, 20.0));
        assert!(near(of(&[1.0, 1e6]), 1.0, 1e6) && near(of(&[10.0]), 10.0, 20.0));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn axes_are_short() {
        assert_eq!([0.5, 10.0, 1000.0, 10_000.0, 2.5e6].map(axis), ["0.5", "10", "1000", "10 k", "2.5 M"]);
    }
}
