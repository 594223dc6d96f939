//! A cursor over JSON text: strings where they stand, numbers as they are written, everything else stepped over.
//!
//! The text is known to be UTF-8 before the cursor starts, so what lies between two quotes is text as well.

use std::borrow::Cow;

use super::number::Number;

/// Objects and arrays inside each other in what is stepped over.
const DEPTH_MAX: usize = 64;

/// What is wrong with the text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte of the text.
    pub(super) at: usize,
    /// In English, without the place.
    pub(super) message: String,
}

impl Fault {
    /// Says in which field it is.
    pub(super) fn within(mut self, field: &str) -> Self {
        self.message = format!("{field}: {}", self.message);
        self
    }
}

/// Where we are in the text.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text from `from` to here.
    pub(super) fn since(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    #[cold]
    pub(super) fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.at, message: message.into() })
    }

    /// The next byte that is no white space, which stays.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    #[cold]
    fn expected<T>(&self, what: &str) -> Result<T, Fault> {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => self.fault(format!("expected {what}, found `{}`", found.escape_default())),
            None => self.fault(format!("expected {what}, but the text ends")),
        }
    }

    /// Takes `byte`, after white space.
    #[inline]
    pub(super) fn take(&mut self, byte: u8, what: &str) -> Result<(), Fault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.expected(what)
    }

    /// Takes `byte` if it is next, after white space.
    #[inline]
    pub(super) fn take_if(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Whether another member or item comes: after the first, a comma must stand before it.
    #[inline]
    pub(super) fn more(&mut self, is_first: &mut bool, end: u8) -> Result<bool, Fault> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if *is_first => {
                *is_first = false;
                Ok(true)
            }
            Some(b',') => {
                self.at += 1;
                if self.peek() == Some(end) {
                    return self.fault("a comma with nothing behind it");
                }
                Ok(true)
            }
            _ => self.expected(if end == b'}' { "`,` or `}`" } else { "`,` or `]`" }),
        }
    }

    /// A member's name and the colon behind it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, Fault> {
        let key = self.string("a name in quotes")?;
        if self.text.as_bytes().get(self.at) == Some(&b':') {
            self.at += 1;
        } else {
            self.take(b':', "`:`")?;
        }
        Ok(key)
    }

    /// A string.
    #[inline]
    pub(super) fn string(&mut self, what: &str) -> Result<Cow<'a, str>, Fault> {
        self.take(b'"', what)?;
        let from = self.at;
        self.at = plain_end(self.text.as_bytes(), from);
        if self.text.as_bytes().get(self.at) == Some(&b'"') {
            let plain = self.since(from);
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        self.escaped(from).map(Cow::Owned)
    }

    /// The rest of a string that is not plain, from its beginning on.
    #[cold]
    fn escaped(&mut self, from: usize) -> Result<String, Fault> {
        let mut out = self.since(from).to_owned();
        loop {
            let plain = self.at;
            self.at = plain_end(self.text.as_bytes(), plain);
            out.push_str(self.since(plain));
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return self.fault("a control character in a string; write it as \\u00XX"),
                None => return self.fault("a string without its closing quote"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let Some(letter) = self.text.as_bytes().get(self.at + 1) else {
            return self.fault("a string without its closing quote");
        };
        let plain = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return self.fault("an escape that JSON does not have"),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, Fault> {
        let digits = |at: usize| {
            let digits = self.text.get(at + 2..at + 6).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.filter(|_| self.text.get(at..at + 2) == Some("\\u")).and_then(|d| u32::from_str_radix(d, 16).ok())
        };
        let (character, bytes) = match digits(self.at) {
            Some(high @ 0xd800..=0xdbff) => match digits(self.at + 6) {
                Some(low @ 0xdc00..=0xdfff) => {
                    (char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12)
                }
                _ => (None, 0),
            },
            Some(code) => (char::from_u32(code), 6),
            None => (None, 0),
        };
        match character {
            Some(character) => {
                self.at += bytes;
                Ok(character)
            }
            None => self.fault("a \\u escape that is no character"),
        }
    }

    /// A number. `what` says what is expected here.
    #[inline]
    pub(super) fn number(&mut self, what: &str) -> Result<Number<'a>, Fault> {
        let next = self.peek();
        if !matches!(next, Some(b'-' | b'0'..=b'9')) {
            return match next {
                Some(b'"') => {
                    self.fault(format!("expected {what}, found a string; numbers are written without quotes"))
                }
                _ => self.expected(what),
            };
        }
        match Number::read(self.text, self.at) {
            Some((number, end)) => {
                self.at = end;
                Ok(number)
            }
            None => self.fault("a number that is not written as in JSON"),
        }
    }

    /// `null`, if that is next.
    #[inline]
    pub(super) fn take_null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.word("null")
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word));
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    /// A truth value, if one is next.
    pub(super) fn boolean(&mut self) -> Option<&'static str> {
        self.peek();
        ["true", "false"].into_iter().find(|word| self.word(word))
    }

    /// Steps over a value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        let mut closing: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => drop(self.string("a string")?),
                Some(b'-' | b'0'..=b'9') => drop(self.number("a number")?),
                Some(open @ (b'{' | b'[')) => {
                    if closing.len() >= DEPTH_MAX {
                        return self.fault(format!("more than {DEPTH_MAX} objects or arrays inside each other"));
                    }
                    self.at += 1;
                    let close = if open == b'{' { b'}' } else { b']' };
                    if !self.take_if(close) {
                        closing.push(close);
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ if self.take_null() || self.boolean().is_some() => {}
                _ => return self.expected("a value"),
            }
            // After a value: its containers end or go on.
            loop {
                let Some(close) = closing.last().copied() else { return Ok(()) };
                let mut is_first = false;
                if self.more(&mut is_first, close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                closing.pop();
            }
        }
    }
}

/// The first byte from `from` on that ends a plain run of a string: a quote, a backslash or a control character; the end
/// of the text if there is none.
#[inline]
fn plain_end(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    // Eight bytes at a time: which of them are below a space, a quote or a backslash.
    while let Some(chunk) = bytes.get(at..at + 8).and_then(|chunk| <[u8; 8]>::try_from(chunk).ok()) {
        let word = u64::from_le_bytes(chunk);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control;
        if found != 0 {
            // Borrows run upwards only, so that the lowest mark is a true one.
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_serde_reads_in_them() {
        for text in [
            r#""""#,
            r#""plain""#,
            r#""longer than a word of eight bytes""#,
            r#""a\"b\\c\/d\b\f\n\r\t""#,
            r#""\u00e9\ud83d\ude00é😀""#,
            r#""1234567\n9""#,
        ] {
            let expected: String = serde_json::from_str(text).unwrap();
            assert_eq!(Scan::new(text).string("a string").unwrap(), expected, "{text}");
        }
        for text in
            ["\"", "\"\\", "\"\\x\"", "\"\\ud800\"", "\"\\u12\"", "\"\\u+123\"", "\"\n\"", "\"1234567\u{1}\"", "x", ""]
        {
            assert!(Scan::new(text).string("a string").is_err(), "{text}");
            assert!(serde_json::from_str::<String>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn any_value_can_be_stepped_over_and_nothing_else() {
        for text in ["1", "[]", "{}", "[1,[2,{\"a\":null}],true]", "{\"a\":{\"b\":[false]},\"c\":\"d\"}"] {
            let mut scan = Scan::new(text);
            scan.skip().unwrap();
            assert_eq!(scan.at(), text.len(), "{text}");
        }
        let deep = "[".repeat(DEPTH_MAX + 1);
        for text in ["", "[", "[1 2]", "[1,]", "{1:2}", "{\"a\"}", "{\"a\":}", "nul", "[}", &deep] {
            assert!(Scan::new(text).skip().is_err(), "{text}");
        }
    }
}
