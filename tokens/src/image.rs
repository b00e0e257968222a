//! What an image costs as input, and how large an image is.
//!
//! Source: OpenAI, "Images and vision: calculating costs" (`developers.openai.com/api/docs/guides/
//! images-vision`), read 2026-11, Anthropic, "Vision: calculate image costs"
//! (`platform.claude.com/docs/en/build-with-claude/vision`), read 2026-11, and Google, "Image
//! understanding" and "Media resolution" (`ai.google.dev/gemini-api/docs`), read 2026-11. A model that is
//! not listed has no rule: its images are estimated by the tiles of GPT-4o.
//!
//! Invariants
//! - Only the head of an image is read, and nothing is decoded.
//!
//! Not here: finding images in a request (`proxy::count`).

/// How an image is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRule {
    /// A base and so many tokens per tile of 512 pixels, after fitting the image into 2048×2048 and its
    /// short side to 768. Low detail costs the base alone.
    Tiles {
        /// Tokens of every image.
        base: u64,
        /// Tokens of a tile.
        tile: u64,
    },
    /// A token per patch of 32 pixels, at most 1536, times a factor in hundredths.
    Patches {
        /// The factor.
        percent: u64,
    },
    /// Width × height / 750, after fitting the long side to 1568 pixels (Anthropic).
    Area,
    /// 258 tokens, and for an image with a side over 384 pixels as many for each tile: tiles are as long as
    /// two thirds of the short side, from 256 to 768 pixels, after fitting the image into 3072×3072 (Gemini
    /// up to 2.5).
    Crops,
    /// So many for every image, whatever its size (Gemini since 3, at the resolution it takes unasked).
    Each {
        /// The tokens.
        tokens: u64,
    },
}

const GPT_4O: ImageRule = ImageRule::Tiles { base: 85, tile: 170 };

/// Rules by the beginning of the model's name; the first that fits counts.
static RULES: &[(&str, ImageRule)] = &[
    ("gpt-5-mini", ImageRule::Patches { percent: 162 }),
    ("gpt-5-nano", ImageRule::Patches { percent: 246 }),
    ("gpt-4.1-mini", ImageRule::Patches { percent: 162 }),
    ("gpt-4.1-nano", ImageRule::Patches { percent: 246 }),
    ("o4-mini", ImageRule::Patches { percent: 172 }),
    ("gpt-5", ImageRule::Tiles { base: 70, tile: 140 }),
    ("gpt-4o-mini", ImageRule::Tiles { base: 2_833, tile: 5_667 }),
    ("gpt-4o", GPT_4O),
    ("gpt-4.1", GPT_4O),
    ("gpt-4.5", GPT_4O),
    ("chatgpt-4o", GPT_4O),
    ("o1", ImageRule::Tiles { base: 75, tile: 150 }),
    ("o3", ImageRule::Tiles { base: 75, tile: 150 }),
    ("computer-use-preview", ImageRule::Tiles { base: 65, tile: 129 }),
    ("claude", ImageRule::Area),
    ("gemini-1", ImageRule::Crops),
    ("gemini-2", ImageRule::Crops),
    ("gemini", ImageRule::Each { tokens: 1_120 }),
];

/// The rule for `model`, if one is published.
#[must_use]
pub fn rule(model: &str) -> Option<ImageRule> {
    let last = model.rsplit('/').next().unwrap_or_default();
    // Bedrock puts a geography and the vendor before it.
    let last = last.split_once("anthropic.").map_or(last, |(_, name)| name);
    RULES.iter().find(|(prefix, _)| last.starts_with(prefix)).map(|(_, rule)| *rule)
}

/// How closely the model is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// At a thumbnail.
    Low,
    /// At all of it; also what is not told.
    High,
}

/// An image's size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Across.
    pub width: u32,
    /// Down.
    pub height: u32,
}

/// What an image without a known size is taken for.
pub const UNKNOWN_SIZE: Size = Size { width: 1_024, height: 1_024 };

impl ImageRule {
    /// The tokens of an image. Scaled sizes are rounded down, as whole pixels.
    #[must_use]
    pub fn tokens(self, size: Size, detail: Detail) -> u64 {
        let (width, height) = (u64::from(size.width.max(1)), u64::from(size.height.max(1)));
        match self {
            Self::Tiles { base, .. } if detail == Detail::Low => base,
            Self::Tiles { base, tile } => {
                let (width, height) = fit(width, height, width.max(height), 2_048);
                let (width, height) = fit(width, height, width.min(height), 768);
                base + tile * width.div_ceil(512) * height.div_ceil(512)
            }
            Self::Patches { percent } => (patches(width, height) * percent).div_ceil(100),
            Self::Area => {
                let (width, height) = fit(width, height, width.max(height), 1_568);
                (width * height).div_ceil(750)
            }
            Self::Crops => {
                let (width, height) = fit(width, height, width.max(height), 3_072);
                let side = if width.max(height) <= 384 { 384 } else { width.min(height) * 2 / 3 };
                let side = side.clamp(256, 768);
                258 * width.div_ceil(side) * height.div_ceil(side)
            }
            Self::Each { tokens } => tokens,
        }
    }
}

/// Shrinks an image so that `side`, one of its sides, is at most `max`.
fn fit(width: u64, height: u64, side: u64, max: u64) -> (u64, u64) {
    if side <= max {
        return (width, height);
    }
    ((width * max / side).max(1), (height * max / side).max(1))
}

const PATCH: u64 = 32;
const PATCHES_MAX: u64 = 1_536;

/// Patches of an image; a larger one is shrunk until at most 1536 cover it, in whole patches.
fn patches(width: u64, height: u64) -> u64 {
    let needed = width.div_ceil(PATCH) * height.div_ceil(PATCH);
    if needed <= PATCHES_MAX {
        return needed;
    }
    // Across, at the scale sqrt(32² × 1536 / (w × h)), rounded down to whole patches; then as many rows
    // as keep the proportions.
    let across = (width * PATCHES_MAX / height).isqrt().clamp(1, PATCHES_MAX);
    let down = (across * height / width).clamp(1, PATCHES_MAX / across);
    across * down
}

/// The size of a PNG, GIF, JPEG or WebP image, from the beginning of its bytes.
#[must_use]
pub fn size_of(bytes: &[u8]) -> Option<Size> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return size(big(bytes, 16, 4)?, big(bytes, 20, 4)?);
    }
    if bytes.starts_with(b"GIF8") {
        return size(little(bytes, 6, 2)?, little(bytes, 8, 2)?);
    }
    if bytes.starts_with(b"\xff\xd8") {
        return jpeg(bytes);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return webp(bytes);
    }
    None
}

fn size(width: u32, height: u32) -> Option<Size> {
    (width > 0 && height > 0).then_some(Size { width, height })
}

fn big(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
}

fn little(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte)))
}

/// Steps over the segments to the frame header (SOF0 to SOF15 without DHT, JPG and DAC).
fn jpeg(bytes: &[u8]) -> Option<Size> {
    let mut at = 2_usize;
    loop {
        if bytes.get(at) != Some(&0xff) {
            return None;
        }
        let marker = *bytes.get(at + 1)?;
        match marker {
            0xff => at += 1,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return size(big(bytes, at + 7, 2)?, big(bytes, at + 5, 2)?);
            }
            _ => at = at.checked_add(2)?.checked_add(big(bytes, at + 2, 2)?.max(2) as usize)?,
        }
    }
}

fn webp(bytes: &[u8]) -> Option<Size> {
    match bytes.get(12..16)? {
        b"VP8X" => size(little(bytes, 24, 3)? + 1, little(bytes, 27, 3)? + 1),
        b"VP8L" => {
            let bits = little(bytes, 21, 4)?;
            size((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1)
        }
        b"VP8 " => size(little(bytes, 26, 2)? & 0x3fff, little(bytes, 28, 2)? & 0x3fff),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(model: &str, width: u32, height: u32, detail: Detail, expected: u64) {
        let rule = rule(model).unwrap();
        assert_eq!(rule.tokens(Size { width, height }, detail), expected, "{model} {width}×{height}");
    }

    #[test]
    fn the_examples_of_the_documentation_come_out() {
        check("gpt-4o", 1_024, 1_024, Detail::High, 765);
        check("gpt-4o", 2_048, 4_096, Detail::High, 1_105);
        check("gpt-4o", 4_096, 8_192, Detail::Low, 85);
        check("gpt-4.1-mini", 1_024, 1_024, Detail::High, 1_659);
        check("o4-mini", 1_800, 2_400, Detail::High, 2_498);
        check("claude-sonnet-4-5", 1_000, 1_000, Detail::High, 1_334);
        check("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 1_000, 1_000, Detail::High, 1_334);
        check("gemini-2.5-flash", 384, 300, Detail::High, 258);
        check("models/gemini-2.5-flash", 960, 540, Detail::High, 6 * 258);
        check("gemini-3-flash-preview", 960, 540, Detail::High, 1_120);
    }

    #[test]
    fn any_size_has_a_figure() {
        for rule in [GPT_4O, ImageRule::Patches { percent: 162 }, ImageRule::Area, ImageRule::Crops] {
            for (width, height) in [(0, 0), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
                let tokens = rule.tokens(Size { width, height }, Detail::High);
                assert!(tokens > 0 && tokens < 10_000, "{rule:?} {width}×{height}: {tokens}");
            }
        }
        assert_eq!(rule("llama-3.2-vision"), None);
    }

    #[test]
    fn sizes_are_read_from_the_heads_of_files() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0";
        assert_eq!(size_of(png), Some(Size { width: 640, height: 480 }));
        assert_eq!(size_of(b"GIF89a\x40\x01\xf0\x00"), Some(Size { width: 320, height: 240 }));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x0b\x08\x01\xe0\x02\x80\x03";
        assert_eq!(size_of(jpeg), Some(Size { width: 640, height: 480 }));
        let webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        assert_eq!(size_of(webp), Some(Size { width: 640, height: 480 }));
        for bytes in [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", b"BM"] {
            assert_eq!(size_of(bytes), None);
        }
    }
}
