//! Numbers of JSON text, to the bit what the standard library makes of them.

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    text: &'a str,
    is_negative: bool,
    /// All digits, if they fit.
    digits: Option<u64>,
    /// The power of ten that the digits are of.
    exponent: i32,
    /// Whether it has neither fraction nor exponent.
    is_integer: bool,
}

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl<'a> Number<'a> {
    /// Reads the number at `from`; its end is returned beside it. `None` if it is not written as in JSON.
    #[inline]
    pub(super) fn read(text: &'a str, from: usize) -> Option<(Self, usize)> {
        let bytes = text.as_bytes();
        let mut at = from;
        let is_negative = bytes.get(at) == Some(&b'-');
        at += usize::from(is_negative);
        let mut digits: u64 = 0;
        let whole = at;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            at += 1;
        }
        let mut count = at - whole;
        if count == 0 || (count > 1 && bytes[whole] == b'0') {
            return None;
        }
        let mut exponent = 0i32;
        let mut is_integer = true;
        if bytes.get(at) == Some(&b'.') {
            is_integer = false;
            at += 1;
            let fraction = at;
            while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
                digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                at += 1;
            }
            if at == fraction {
                return None;
            }
            count += at - fraction;
            exponent = -i32::try_from(at - fraction).unwrap_or(i32::MAX);
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            is_integer = false;
            at += 1;
            let sign = bytes.get(at).copied();
            at += usize::from(matches!(sign, Some(b'+' | b'-')));
            let from = at;
            let mut power = 0i32;
            while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
                power = power.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
                at += 1;
            }
            if at == from {
                return None;
            }
            exponent = exponent.saturating_add(if sign == Some(b'-') { -power } else { power });
        }
        // Nineteen digits always fit into 64 bits; leading zeros only make this stricter.
        let digits = (count <= 19).then_some(digits);
        Some((Self { text: text.get(from..at)?, is_negative, digits, exponent, is_integer }, at))
    }

    /// The number as a double; infinite if it is beyond them.
    #[inline]
    pub(super) fn to_f64(self) -> f64 {
        // Both the digits and the power of ten are exact, so one correctly rounded operation is all there is.
        match self.digits {
            Some(digits) if digits <= 1 << 53 && self.exponent.unsigned_abs() <= 22 => {
                let power = POWERS[self.exponent.unsigned_abs() as usize];
                let value = if self.exponent < 0 { digits as f64 / power } else { digits as f64 * power };
                if self.is_negative { -value } else { value }
            }
            _ => self.text.parse().unwrap_or(f64::NAN),
        }
    }

    /// The number as an integer, if it is written as one and not negative.
    pub(super) fn to_u64(self) -> Option<u64> {
        (self.is_integer && !self.is_negative).then_some(self.digits).flatten()
    }

    /// Whether it is written without fraction and exponent.
    pub(super) fn is_integer(self) -> bool {
        self.is_integer
    }

    /// As it is written.
    pub(super) fn text(self) -> &'a str {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Option<f64> {
        Number::read(text, 0).filter(|(_, end)| *end == text.len()).map(|(number, _)| number.to_f64())
    }

    #[test]
    fn what_json_does_not_write_is_no_number() {
        for text in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "--1"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn doubles_come_back_to_the_bit(bits: u64) {
            let expected = f64::from_bits(bits);
            prop_assume!(expected.is_finite());
            for text in [format!("{expected:?}"), format!("{expected:e}"), format!("{expected}")] {
                prop_assert_eq!(value(&text).map(f64::to_bits), Some(expected.to_bits()), "{}", text);
            }
        }

        #[test]
        fn short_decimals_are_what_the_library_makes_of_them(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?") {
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(value(&text).map(f64::to_bits), Some(expected.to_bits()));
        }
    }
}
