//! Decimals in an overlay file: the text of a number, however the file wrote it.
//!
//! Invariants
//! - Text and integers keep their exact value. A float is taken as its shortest decimal text, which
//!   is what the file says for up to 15 significant digits; write longer numbers as text.
//!
//! Not here: what the number means and whether it is a usable price (`check`).

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;

/// A number as the file wrote it, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal(String);

impl Decimal {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Decimal {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecimalVisitor)
    }
}

struct DecimalVisitor;

impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number such as 2.5 or \"2.5\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
        Ok(Decimal::from(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Decimal, E> {
        Ok(Decimal(number.to_string()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Decimal, E> {
        Ok(Decimal(value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_keep_what_the_file_says() {
        for (json, text) in [
            ("\"2.50\"", "2.50"),
            ("3", "3"),
            ("-3", "-3"),
            ("0.075", "0.075"),
            ("1e-7", "0.0000001"),
            ("0.000000000001", "0.000000000001"),
            ("123456789.123456", "123456789.123456"),
            ("\" 4 \"", "4"),
            ("true", "true"),
        ] {
            let decimal: Decimal = serde_json::from_str(json).unwrap();
            assert_eq!(decimal.text(), text, "{json}");
        }
        assert!(serde_json::from_str::<Decimal>("[1]").is_err());
        assert!(serde_json::from_str::<Decimal>("null").is_err());
    }
}
