//! One thing that is wrong with a config, and how it is shown.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// The config can be used, but probably does not do what was meant.
    Warning,
}

/// An error or a warning, with the place in the file it is about.
///
/// [`Display`](fmt::Display) shows it like a compiler does, with the source line and no colours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// A short remark on the marked place.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Name of the file.
    pub file: String,
    /// Line, from 1; 0 when it is about the whole file.
    pub line: usize,
    /// Column in characters, from 1; 0 when it is about the whole file.
    pub column: usize,
    /// Number of characters that are marked; 0 marks the place before `column`.
    pub length: usize,
    /// The text of the line.
    pub source_line: String,
}

impl Diagnostic {
    /// About bytes `span` of `text`, of which the first line is marked.
    pub(super) fn at(
        severity: Severity,
        file: &str,
        text: &str,
        span: Range<usize>,
        message: String,
    ) -> Self {
        Self::in_line(severity, file, text, line_number(text, span.start), span, message)
    }

    /// As [`at`](Self::at), for who knows the line in which `span` starts.
    pub(super) fn in_line(
        severity: Severity,
        file: &str,
        text: &str,
        line: usize,
        span: Range<usize>,
        message: String,
    ) -> Self {
        let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &text[line_start..];
        let source_line = rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r');
        let line_end = line_start + source_line.len();
        let (start, end) = (span.start.min(line_end), span.end.min(line_end));
        Self {
            severity,
            message,
            label: None,
            help: None,
            file: file.to_owned(),
            line,
            column: text[line_start..start].chars().count() + 1,
            length: text[start..end.max(start)].chars().count(),
            source_line: source_line.to_owned(),
        }
    }

    /// About the whole file.
    pub(super) fn about_file(severity: Severity, file: &str, message: String) -> Self {
        Self { line: 0, column: 0, length: 0, ..Self::at(severity, file, "", 0..0, message) }
    }

    /// Adds a remark on the marked place.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do about it.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// The text [`Display`](fmt::Display) gives, for a terminal that understands ANSI colours.
    pub fn to_colored_string(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*self.message);
        let mut group = if self.line == 0 {
            Group::with_title(title).element(Origin::path(&*self.file))
        } else {
            let mark = AnnotationKind::Primary.span(self.marked_bytes()).label(self.label.as_deref());
            let snippet = Snippet::source(&*self.source_line).path(&*self.file).line_start(self.line);
            Group::with_title(title).element(snippet.annotation(mark))
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(&**help));
        }
        renderer.render(&[group])
    }

    /// The marked part as bytes of the source line.
    fn marked_bytes(&self) -> Range<usize> {
        let byte_of = |character: usize| {
            self.source_line.char_indices().nth(character).map_or(self.source_line.len(), |(byte, _)| byte)
        };
        let start = self.column.saturating_sub(1);
        byte_of(start)..byte_of(start + self.length)
    }
}

/// The line, from 1, in which byte `offset` of `text` lies.
fn line_number(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}
