//! Reads typed values from a parsed document and collects what is wrong on the way.
//!
//! A [`Section`] is one table. Its getters give `None` both for a key that is absent and for one that is
//! wrong; in the second case they have reported it.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::choice::{list, nearest};
use super::diagnostic::{Diagnostic, Severity};
use super::filter::values::describe;
use crate::stages::filter::{ParsePrefixError, Prefix};
use crate::words::Choice;

/// A place in the file: a range of bytes.
pub(super) type Span = Range<usize>;

/// The file that is read, and what is wrong with it.
pub(super) struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// Where lines end: large files have many places that are asked for their line.
    newlines: Vec<usize>,
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Reader<'t> {
    pub fn new(file: &'t str, text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(offset, _)| offset).collect();
        Self { file, text, newlines, diagnostics: Vec::new() }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let line = self.line(&span);
        let error = Diagnostic::in_line(Severity::Error, self.file, self.text, line, span, message.into());
        self.diagnostics.push_mut(error)
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let line = self.line(&span);
        let warning =
            Diagnostic::in_line(Severity::Warning, self.file, self.text, line, span, message.into());
        self.diagnostics.push_mut(warning)
    }

    pub fn error_about_file(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        let error = Diagnostic::about_file(Severity::Error, self.file, message.into());
        self.diagnostics.push_mut(error)
    }

    /// The line, from 1, in which `span` starts.
    pub fn line(&self, span: &Span) -> usize {
        self.newlines.partition_point(|newline| *newline < span.start) + 1
    }

    /// What was reported, in the order of the file: the errors, or if there are none, the warnings. Beside
    /// errors warnings are left out: half of them would follow from the errors.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        // This file first, then those it names.
        let file = self.file;
        let place = |diagnostic: &Diagnostic| {
            let other = if diagnostic.file == file { String::new() } else { diagnostic.file.clone() };
            (other, diagnostic.line, diagnostic.column)
        };
        self.diagnostics.sort_by_cached_key(place);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.diagnostics.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
        if errors.is_empty() { Ok(warnings) } else { Err(errors) }
    }

    /// Reports what was found in another file.
    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Reports a value that is not `expected`.
    pub fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> &mut Diagnostic {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        self.error(value.span(), format!("`{key}` must be {expected}"))
            .label(format!("this is {article} {found}"))
    }
}

/// A table of the document.
pub(super) struct Section<'t> {
    /// How messages call it, such as `[dataplane]`.
    name: &'static str,
    table: &'t DeTable<'t>,
    span: Span,
    /// Known keys that unknown ones were probably meant to be: not reported as missing, too.
    misspelt: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Reports the keys that are not `known`.
    pub fn open(
        reader: &mut Reader<'_>,
        name: &'static str,
        table: &'t DeTable<'t>,
        span: Span,
        known: &[&'static str],
    ) -> Self {
        let mut misspelt = Vec::new();
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let word = key.get_ref();
            // The document itself has no name, its keys are the sections.
            let (kind, place) = match name {
                "" => ("section", String::new()),
                _ => ("key", format!(" in `{name}`")),
            };
            let error = reader.error(key.span(), format!("unknown {kind} `{word}`{place}"));
            if let Some(meant) = nearest(word, known.iter().copied()) {
                error.label(format!("did you mean `{meant}`?"));
                misspelt.push(meant);
            } else {
                error.help(format!("known {kind}s: {}", list(known.iter().copied())));
            }
        }
        Self { name, table, span, misspelt }
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Where its header is.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Whether `key` is there, perhaps misspelt.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key) || self.misspelt.contains(&key)
    }

    pub fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Where the value of `key` is; the header when there is none.
    pub fn place(&self, key: &str) -> Span {
        self.value(key).map_or_else(|| self.span(), |value| value.span())
    }

    /// Where table `index` of the `[[key]]` below this one starts.
    pub fn nth(&self, key: &str, index: usize) -> Option<Span> {
        let value = self.value(key)?;
        let table = value.get_ref().as_array().and_then(|tables| tables.get(index));
        table.map(|table| table.span())
    }

    /// Reports `key` as missing unless it is there or misspelt; `example` is a value it could have.
    pub fn require(&self, reader: &mut Reader<'_>, key: &str, example: &str) {
        if !self.has(key) {
            reader
                .error(self.span(), format!("`{}` lacks the key `{key}`", self.name))
                .label(format!("add for example `{key} = {example}`"));
        }
    }

    /// The table `[key]` below this one.
    pub fn table(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Option<Section<'t>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(reader, name, table, value.span(), known)),
            DeValue::Array(_) => {
                reader.wrong_type(key, value, "one table").help(format!("write `{name}`"));
                None
            }
            _ => {
                reader.wrong_type(key, value, "a table").help(format!("write `{name}`"));
                None
            }
        }
    }

    /// The tables `[[key]]` below this one, `name` with its brackets.
    pub fn tables(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Vec<Section<'t>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            reader.wrong_type(key, value, "an array of tables").help(format!("write `{name}`"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::open(reader, name, table, item.span(), known))
                }
                _ => {
                    reader.wrong_type(key, item, "an array of tables").help(format!("write `{name}`"));
                }
            }
        }
        sections
    }

    pub fn text(&self, reader: &mut Reader<'_>, key: &str) -> Option<Spanned<&'t str>> {
        let value = self.value(key)?;
        text(reader, key, value)
    }

    /// The texts of an array.
    pub fn texts(&self, reader: &mut Reader<'_>, key: &str) -> Option<Vec<Spanned<&'t str>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            reader.wrong_type(key, value, "an array of strings");
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(Spanned::new(item.span(), text.as_ref())),
                _ => {
                    reader.wrong_type(key, item, "an array of strings");
                }
            }
        }
        Some(texts)
    }

    pub fn boolean(&self, reader: &mut Reader<'_>, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            reader.wrong_type(key, value, "`true` or `false`");
        }
        boolean
    }

    pub fn integer(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        allowed: RangeInclusive<u32>,
    ) -> Option<Spanned<u32>> {
        let value = self.value(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            reader.wrong_type(key, value, "an integer");
            return None;
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if allowed.contains(&number) => Some(Spanned::new(value.span(), number)),
            _ => {
                let (low, high) = allowed.into_inner();
                reader
                    .error(value.span(), format!("`{key}` is out of range"))
                    .label(format!("must be {low} to {high}"));
                None
            }
        }
    }

    pub fn power_of_two(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        allowed: RangeInclusive<u32>,
    ) -> Option<Spanned<u32>> {
        let number = self.integer(reader, key, allowed)?;
        let value = *number.get_ref();
        if value.is_power_of_two() {
            return Some(number);
        }
        let above = value.next_power_of_two();
        reader
            .error(number.span(), format!("`{key}` must be a power of two"))
            .label(format!("such as {} or {above}", above / 2));
        None
    }

    pub fn choice<C: Choice>(&self, reader: &mut Reader<'_>, key: &str) -> Option<C> {
        let word = self.text(reader, key)?;
        choice(reader, key, &word)
    }

    /// An IP address, without prefix length or port.
    pub fn address(&self, reader: &mut Reader<'_>, key: &str) -> Option<Spanned<IpAddr>> {
        let text = self.text(reader, key)?;
        address(reader, key, &text)
    }

    /// The addresses of an array.
    pub fn addresses(&self, reader: &mut Reader<'_>, key: &str) -> Vec<Spanned<IpAddr>> {
        let texts = self.texts(reader, key).unwrap_or_default();
        texts.iter().filter_map(|text| address(reader, key, text)).collect()
    }

    /// An IP address, or a prefix.
    pub fn prefix(&self, reader: &mut Reader<'_>, key: &str) -> Option<Spanned<Prefix>> {
        let text = self.text(reader, key)?;
        match text.get_ref().parse() {
            Ok(prefix) => Some(Spanned::new(text.span(), prefix)),
            Err(error) => {
                let (message, mut label) = describe(key, &error);
                let word = *text.get_ref();
                match (&error, word.split_once('/'), word.parse::<SocketAddr>()) {
                    (ParsePrefixError::HostBits { meant }, Some((address, _)), _) => {
                        label = format!("did you mean `{meant}`, or `{address}` alone?");
                    }
                    (ParsePrefixError::Syntax, _, Ok(address)) => {
                        label = format!("without port: `{}`", address.ip())
                    }
                    _ => {}
                }
                reader.error(text.span(), message).label(label);
                None
            }
        }
    }
}

fn address(reader: &mut Reader<'_>, key: &str, text: &Spanned<&str>) -> Option<Spanned<IpAddr>> {
    let word = *text.get_ref();
    match word.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            let meant = address.to_canonical();
            reader
                .error(text.span(), format!("`{key}` is an IPv4-mapped IPv6 address"))
                .label(format!("write `{meant}`"));
            None
        }
        Ok(address) => Some(Spanned::new(text.span(), address)),
        Err(_) => {
            let error = reader.error(text.span(), format!("`{key}` is not an IP address"));
            if let Some((address, _)) =
                word.split_once('/').filter(|(word, _)| word.parse::<IpAddr>().is_ok())
            {
                error.label(format!("without prefix length: `{address}`"));
            } else if let Ok(address) = word.parse::<SocketAddr>() {
                error.label(format!("without port: `{}`", address.ip()));
            } else {
                error.label("expected one such as `198.18.10.1` or `2001:db8::1`");
            }
            None
        }
    }
}

fn text<'t>(reader: &mut Reader<'_>, key: &str, value: &'t Spanned<DeValue<'t>>) -> Option<Spanned<&'t str>> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        reader.wrong_type(key, value, "a string");
    }
    text.map(|text| Spanned::new(value.span(), text))
}

/// The value of an enum that `word` names.
pub(super) fn choice<C: Choice>(reader: &mut Reader<'_>, key: &str, word: &Spanned<&str>) -> Option<C> {
    let known = || C::ALL.iter().map(|choice| choice.word());
    let found = C::ALL.iter().copied().find(|choice| choice.word() == *word.get_ref());
    if found.is_none() {
        let error = reader.error(word.span(), format!("unknown value `{}` for `{key}`", word.get_ref()));
        if let Some(meant) = nearest(word.get_ref(), known()) {
            error.label(format!("did you mean `{meant}`?"));
        } else {
            error.label(format!("known: {}", list(known())));
        }
    }
    found
}
