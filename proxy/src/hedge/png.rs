//! The chart of a simulation as a PNG picture: a small canvas, lines with soft edges, a bitmap font.
//!
//! Invariants
//! - It shows what the SVG shows, in the same places at twice the size; the same figures give the same bytes.
//! - What lies outside the canvas is not drawn.
//!
//! Not here: where things stand (`simulate::Frame`), the figures.

use super::simulate::{Frame, HEIGHT, LEFT, WIDTH, legend, title};
use bursar_policies::hedge::analytics::{Curve, Simulation, Summary};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

/// Pixels of one unit of the SVG.
const SCALE: f64 = 2.0;
/// Pixels of one dot of a letter.
const DOT: i32 = 2;
/// Columns of a letter with the space after it.
const ADVANCE: i32 = 6;
/// A dash and the gap after it, in pixels.
const DASH: (f64, f64) = (8.0, 6.0);

type Colour = [u8; 3];

const WHITE: Colour = [255, 255, 255];
const BLACK: Colour = [34, 34, 34];
const GREY: Colour = [221, 221, 221];
const BAND: Colour = [158, 197, 232];
const BLUE: Colour = [31, 95, 153];
const RED: Colour = [192, 57, 43];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("cannot compress the picture")]
pub(crate) struct PngError(#[from] std::io::Error);

/// The chart as a PNG file.
pub(crate) fn png_chart(simulation: &Simulation, found: &Summary) -> Result<Vec<u8>, PngError> {
    let frame = Frame::of(&found.curve);
    let mut canvas = Canvas::new(pixel(WIDTH * SCALE), pixel(HEIGHT * SCALE));
    canvas.text((pixel(LEFT * SCALE), pixel(10.0 * SCALE)), &title(simulation, found));
    for step in 0..=4_u32 {
        let price = frame.top * f64::from(step) / 4.0;
        let y = frame.y(price) * SCALE;
        canvas.line(&[(LEFT * SCALE, y), ((WIDTH - 16.0) * SCALE, y)], GREY, None);
        canvas.text((pixel(8.0 * SCALE), pixel(y) - 7), &format!("{price:.2}"));
    }
    for month in (0..=frame.months).step_by(6) {
        let text = month.to_string();
        let width = DOT * ADVANCE * i32::try_from(text.len()).unwrap_or(0);
        canvas.text((pixel(frame.x(month) * SCALE) - width / 2, pixel(frame.base() * SCALE) + 12), &text);
    }
    let points = |of: fn(&Curve) -> f64| -> Vec<(f64, f64)> {
        let scaled = found.curve.iter().map(|point| (frame.x(point.month), frame.y(of(point))));
        scaled.map(|(x, y)| (x * SCALE, y * SCALE)).collect()
    };
    canvas.band(&points(|point| point.high), &points(|point| point.low), BAND);
    canvas.line(&points(|point| point.median), BLUE, None);
    canvas.line(&points(|point| point.mean), RED, None);
    canvas.line(&points(|point| point.future), BLACK, Some(DASH));
    canvas.text((pixel(LEFT * SCALE), pixel((frame.base() + 30.0) * SCALE)), legend());
    canvas.encode()
}

/// The nearest pixel.
#[expect(clippy::cast_possible_truncation, reason = "a cast from a float stops at the ends of its range")]
fn pixel(at: f64) -> i32 {
    at.round() as i32
}

/// A part of 255.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a byte")]
fn byte(part: f64) -> u8 {
    (part.clamp(0.0, 1.0) * 255.0).round() as u8
}

struct Canvas {
    width: i32,
    height: i32,
    /// Red, green and blue, row by row.
    pixels: Vec<Colour>,
}

impl Canvas {
    fn new(width: i32, height: i32) -> Self {
        let count = usize::try_from(width.saturating_mul(height)).unwrap_or(0);
        Self { width, height, pixels: vec![WHITE; count] }
    }

    fn index(&self, x: i32, y: i32) -> Option<usize> {
        let inside = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        usize::try_from(y.checked_mul(self.width)?.checked_add(x)?).ok().filter(|_| inside)
    }

    /// Lays a colour over a pixel, covering `part` of 255 of it.
    fn blend(&mut self, (x, y): (i32, i32), colour: Colour, part: u8) {
        let Some(pixel) = self.index(x, y).and_then(|index| self.pixels.get_mut(index)) else { return };
        for (old, new) in pixel.iter_mut().zip(colour) {
            let (part, rest) = (u32::from(part), u32::from(255 - part));
            *old = u8::try_from((u32::from(*old) * rest + u32::from(new) * part + 127) / 255).unwrap_or(255);
        }
    }

    /// A line through points, three pixels wide with soft edges; with gaps when dashes are given. Where
    /// its parts meet, it is not laid over itself.
    fn line(&mut self, points: &[(f64, f64)], colour: Colour, dash: Option<(f64, f64)>) {
        let mut covered = std::collections::BTreeMap::new();
        let mut passed = 0.0;
        for (from, to) in points.iter().zip(points.iter().skip(1)) {
            let (along, across) = (to.0 - from.0, to.1 - from.1);
            let length = along.hypot(across);
            let (low, high) = (pixel(from.0.min(to.0)) - 3, pixel(from.0.max(to.0)) + 3);
            let (top, bottom) = (pixel(from.1.min(to.1)) - 3, pixel(from.1.max(to.1)) + 3);
            for y in top.max(0)..=bottom.min(self.height - 1) {
                for x in low.max(0)..=high.min(self.width - 1) {
                    let (dx, dy) = (f64::from(x) - from.0, f64::from(y) - from.1);
                    let at = if length > 0.0 {
                        ((dx * along + dy * across) / length).clamp(0.0, length)
                    } else {
                        0.0
                    };
                    let (unit_x, unit_y) =
                        if length > 0.0 { (along / length, across / length) } else { (0.0, 0.0) };
                    let distance = (dx - at * unit_x).hypot(dy - at * unit_y);
                    let gap = dash.is_some_and(|(on, off)| (passed + at) % (on + off) > on);
                    let part = if gap { 0 } else { byte(2.0 - distance) };
                    if part > 0 {
                        let most = covered.entry((x, y)).or_insert(0_u8);
                        *most = part.max(*most);
                    }
                }
            }
            passed += length;
        }
        for (at, part) in covered {
            self.blend(at, colour, part);
        }
    }

    /// What lies between two lines with the same places from left to right.
    fn band(&mut self, upper: &[(f64, f64)], lower: &[(f64, f64)], colour: Colour) {
        let sides = upper.iter().zip(lower);
        for ((left_up, left_low), (right_up, right_low)) in sides.clone().zip(sides.skip(1)) {
            for x in pixel(left_up.0)..pixel(right_up.0) {
                let part = (f64::from(x) - left_up.0) / (right_up.0 - left_up.0);
                let top = left_up.1 + part * (right_up.1 - left_up.1);
                let bottom = left_low.1 + part * (right_low.1 - left_low.1);
                for y in pixel(top).max(0)..pixel(bottom).min(self.height) {
                    self.blend((x, y), colour, 128);
                }
            }
        }
    }

    /// Text with its upper left corner at a place.
    fn text(&mut self, (left, top): (i32, i32), text: &str) {
        let mut left = left;
        for letter in text.chars() {
            for (column, bits) in (0..).zip(glyph(letter)) {
                for row in (0..7).filter(|row| bits >> row & 1 == 1) {
                    let (x, y) = (left + column * DOT, top + row * DOT);
                    for (dx, dy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        self.blend((x + dx, y + dy), BLACK, 255);
                    }
                }
            }
            left += ADVANCE * DOT;
        }
    }

    /// The picture as a PNG file (ISO/IEC 15948): 8 bits a channel, no filter.
    fn encode(&self) -> Result<Vec<u8>, PngError> {
        let mut rows = ZlibEncoder::new(Vec::new(), Compression::default());
        let width = usize::try_from(self.width).unwrap_or(1).max(1);
        for row in self.pixels.chunks(width) {
            rows.write_all(&[0])?;
            rows.write_all(&row.concat())?;
        }
        let mut header = Vec::new();
        header.extend(self.width.to_be_bytes());
        header.extend(self.height.to_be_bytes());
        // Eight bits, colours without alpha, deflate, the only filter method, not interlaced.
        header.extend([8, 2, 0, 0, 0]);
        let mut file = vec![0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n'];
        chunk(&mut file, *b"IHDR", &header);
        chunk(&mut file, *b"IDAT", &rows.finish()?);
        chunk(&mut file, *b"IEND", &[]);
        Ok(file)
    }
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], bytes: &[u8]) {
    file.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    file.extend(kind);
    file.extend(bytes);
    let mut sum = crc32fast::Hasher::new();
    sum.update(&kind);
    sum.update(bytes);
    file.extend(sum.finalize().to_be_bytes());
}

/// The columns of a letter of five by seven dots, the lowest bit on top; a box for what is not there.
const fn glyph(letter: char) -> [u8; 5] {
    match letter {
        ' ' => [0x00, 0x00, 0x00, 0x00, 0x00],
        '%' => [0x23, 0x13, 0x08, 0x64, 0x62],
        '\'' | '’' => [0x00, 0x05, 0x03, 0x00, 0x00],
        ',' => [0x00, 0x50, 0x30, 0x00, 0x00],
        '-' | '–' => [0x08, 0x08, 0x08, 0x08, 0x08],
        '.' => [0x00, 0x60, 0x60, 0x00, 0x00],
        ':' => [0x00, 0x36, 0x36, 0x00, 0x00],
        ';' => [0x00, 0x56, 0x36, 0x00, 0x00],
        '0' => [0x3E, 0x51, 0x49, 0x45, 0x3E],
        '1' => [0x00, 0x42, 0x7F, 0x40, 0x00],
        '2' => [0x42, 0x61, 0x51, 0x49, 0x46],
        '3' => [0x21, 0x41, 0x45, 0x4B, 0x31],
        '4' => [0x18, 0x14, 0x12, 0x7F, 0x10],
        '5' => [0x27, 0x45, 0x45, 0x45, 0x39],
        '6' => [0x3C, 0x4A, 0x49, 0x49, 0x30],
        '7' => [0x01, 0x71, 0x09, 0x05, 0x03],
        '8' => [0x36, 0x49, 0x49, 0x49, 0x36],
        '9' => [0x06, 0x49, 0x49, 0x29, 0x1E],
        'T' => [0x01, 0x01, 0x7F, 0x01, 0x01],
        'a' => [0x20, 0x54, 0x54, 0x54, 0x78],
        'b' => [0x7F, 0x48, 0x44, 0x44, 0x38],
        'c' => [0x38, 0x44, 0x44, 0x44, 0x20],
        'd' => [0x38, 0x44, 0x44, 0x48, 0x7F],
        'e' => [0x38, 0x54, 0x54, 0x54, 0x18],
        'f' => [0x08, 0x7E, 0x09, 0x01, 0x02],
        'g' => [0x0C, 0x52, 0x52, 0x52, 0x3E],
        'h' => [0x7F, 0x08, 0x04, 0x04, 0x78],
        'i' => [0x00, 0x44, 0x7D, 0x40, 0x00],
        'j' => [0x20, 0x40, 0x44, 0x3D, 0x00],
        'k' => [0x7F, 0x10, 0x28, 0x44, 0x00],
        'l' => [0x00, 0x41, 0x7F, 0x40, 0x00],
        'm' => [0x7C, 0x04, 0x18, 0x04, 0x78],
        'n' => [0x7C, 0x08, 0x04, 0x04, 0x78],
        'o' => [0x38, 0x44, 0x44, 0x44, 0x38],
        'p' => [0x7C, 0x14, 0x14, 0x14, 0x08],
        'q' => [0x08, 0x14, 0x14, 0x18, 0x7C],
        'r' => [0x7C, 0x08, 0x04, 0x04, 0x08],
        's' => [0x48, 0x54, 0x54, 0x54, 0x20],
        't' => [0x04, 0x3F, 0x44, 0x40, 0x20],
        'u' => [0x3C, 0x40, 0x40, 0x20, 0x7C],
        'v' => [0x1C, 0x20, 0x40, 0x20, 0x1C],
        'w' => [0x3C, 0x40, 0x30, 0x40, 0x3C],
        'x' => [0x44, 0x28, 0x10, 0x28, 0x44],
        'y' => [0x0C, 0x50, 0x50, 0x50, 0x3C],
        'z' => [0x44, 0x64, 0x54, 0x4C, 0x44],
        _ => [0x7F, 0x41, 0x41, 0x41, 0x7F],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// The parts of a PNG file, with their sums checked.
    fn parts(file: &[u8]) -> Vec<(String, Vec<u8>)> {
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        let (mut rest, mut found) = (&file[8..], Vec::new());
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (kind, bytes) = (&rest[4..8], &rest[8..8 + length]);
            let sum = u32::from_be_bytes(rest[8 + length..12 + length].try_into().unwrap());
            assert_eq!(sum, crc32fast::hash(&rest[4..8 + length]));
            found.push((String::from_utf8_lossy(kind).into_owned(), bytes.to_vec()));
            rest = &rest[12 + length..];
        }
        found
    }

    #[test]
    fn the_picture_is_whole_and_has_every_line_in_its_colour() {
        let simulation = Simulation { paths: 200, ..Simulation::published(1, 0.1) };
        let found = super::super::simulate::run(&simulation, &|_| {}).unwrap();
        let file = png_chart(&simulation, &found).unwrap();
        assert_eq!(file, png_chart(&simulation, &found).unwrap());
        let parts = parts(&file);
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["IHDR", "IDAT", "IEND"]);
        assert_eq!(&parts[0].1[..8], &[0, 0, 5, 160, 0, 0, 2, 208], "1440 by 720");
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&parts[1].1[..]).read_to_end(&mut rows).unwrap();
        assert_eq!(rows.len(), 720 * (1 + 3 * 1_440));
        let pixels: Vec<Colour> = rows
            .chunks(1 + 3 * 1_440)
            .flat_map(|row| row[1..].chunks(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]))
            .collect();
        for colour in [WHITE, BLACK, GREY, BLUE, RED] {
            assert!(pixels.iter().filter(|pixel| **pixel == colour).count() > 500, "{colour:?}");
        }
    }

    #[test]
    fn every_letter_of_the_chart_has_a_shape() {
        let simulation = Simulation { paths: 200, ..Simulation::published(1, 0.1) };
        let found = super::super::simulate::run(&simulation, &|_| {}).unwrap();
        let text = format!("{}{}0123456789.", title(&simulation, &found), legend());
        let missing: String = text.chars().filter(|letter| glyph(*letter) == glyph('\u{0}')).collect();
        assert_eq!(missing, "");
    }
}
