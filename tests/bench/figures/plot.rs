//! The growth as a picture: one curve for each figure, both axes logarithmic, so that flat is flat
//! whatever the unit.

use std::path::Path;

use plotters::prelude::*;

use crate::growth::{COLUMNS, Row};

/// Draws the rows as SVG.
pub fn draw(path: &Path, rows: &[Row]) {
    let area = SVGBackend::new(path, (720, 440)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption("cost with so many samples waiting", ("sans-serif", 18))
        .margin(12)
        .margin_right(48)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((1e3..1e6).log_scale(), (1.0..1e3).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .x_desc("samples waiting")
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&|figure| format!("{figure:.0}"))
        .disable_x_mesh()
        .draw()
        .unwrap();
    let colours = [BLUE, RED, BLACK, MAGENTA, RGBColor(0, 128, 0), RGBColor(200, 110, 0)];
    for (column, (name, colour)) in COLUMNS.iter().zip(colours).enumerate() {
        let points = rows.iter().map(|row| (row.waiting as f64, row.figures[column].max(1.0)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .unwrap()
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .unwrap();
    area.present().unwrap();
}
