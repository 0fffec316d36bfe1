//! How things look on a terminal: its abilities, and texts that fit into columns. Pure.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::report::units::latency;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Look {
    /// What the environment says: `NO_COLOR`, `TERM`, and the locale's encoding.
    #[must_use]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let monochrome =
            set("TERM").is_some_and(|term| term.starts_with("vt") || term.ends_with("-m"));
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let encoding = locale.unwrap_or_default().to_ascii_lowercase().replace('-', "");
        Self {
            colour: set("NO_COLOR").is_none() && !monochrome,
            unicode: encoding.contains("utf8"),
        }
    }

    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }

    /// For what must not be missed.
    pub(super) fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.fg(Color::White).bg(Color::Red)
        } else {
            style.add_modifier(Modifier::REVERSED)
        }
    }

    /// For what deserves a look.
    pub(super) fn warning(self) -> Style {
        self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Yellow)
    }

    pub(super) fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    pub(super) fn graph(self) -> Style {
        self.coloured(Style::new(), Color::Cyan)
    }

    /// The characters of a graph from low to high.
    pub(super) fn levels(self) -> &'static [char] {
        if self.unicode {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &['_', '.', ':', '-', '=', '+', '*', '#']
        }
    }

    /// `text` with what the terminal cannot show replaced.
    pub(super) fn text(self, text: &str) -> String {
        if self.unicode {
            return text.to_owned();
        }
        let ascii = |c: char| match c {
            'µ' => 'u',
            c if c.is_ascii() => c,
            _ => '?',
        };
        text.chars().map(ascii).collect()
    }
}

/// A latency in µs; `coarse` when it is the bound of a wide bucket.
pub(super) fn time(us: Option<f64>, coarse: bool) -> String {
    let mark = if coarse { "~" } else { "" };
    us.map_or("-".into(), |us| format!("{mark}{}", latency(us * 1e3)))
}

/// A number in at most five characters.
pub(super) fn short(count: u64) -> String {
    match count {
        0..=99_999 => count.to_string(),
        100_000..=9_999_999 => format!("{}k", count / 1000),
        10_000_000..=9_999_999_999 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", (count / 1_000_000_000).min(9999)),
    }
}

/// `text` cut or filled to `width` columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    let mut padded = String::new();
    let mut used = 0;
    for c in text.chars() {
        let columns = Span::raw(c.to_string()).width();
        if used + columns > width {
            break;
        }
        padded.push(c);
        used += columns;
    }
    padded.push_str(&" ".repeat(width - used));
    padded
}

/// `text` in at most `most` lines; an ellipsis stands for what does not fit.
pub(super) fn wrapped(text: &str, width: usize, most: usize, style: Style) -> Vec<Line<'static>> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if Span::raw(line.as_str()).width() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            let kept = last.chars().count().min(width.saturating_sub(4));
            *last = format!("{} ...", last.chars().take(kept).collect::<String>());
        }
    }
    lines.into_iter().map(|line| Line::styled(line, style)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_says() {
        let look = |pairs: &[(&str, &str)]| {
            Look::of_environment(|name| {
                pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
            })
        };
        let looks = |colour, unicode| Look { colour, unicode };
        assert_eq!(look(&[("TERM", "xterm-256color"), ("LANG", "C.UTF-8")]), looks(true, true));
        assert_eq!(look(&[("LANG", "en_US.utf8"), ("LC_ALL", "C")]), looks(true, false));
        assert_eq!(look(&[("NO_COLOR", "1"), ("LC_CTYPE", "C.UTF-8")]), looks(false, true));
        assert_eq!(look(&[("NO_COLOR", ""), ("TERM", "vt100")]), looks(false, false));
    }

    #[test]
    fn numbers_in_five_characters() {
        for (count, expected) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (9_999_999, "9999k"),
            (10_000_000, "10M"),
            (u64::MAX, "9999G"),
        ] {
            assert_eq!(short(count), expected);
        }
    }

    #[test]
    fn text_is_cut_by_columns_and_words() {
        assert_eq!(pad("ab", 4), "ab  ");
        assert_eq!(pad("日本語", 5), "日本 ");
        let text = |lines: Vec<Line<'_>>| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(wrapped("aa bb cc dd", 5, 9, Style::new())), ["aa bb", "cc dd"]);
        assert_eq!(text(wrapped("aa bb cc dd", 5, 1, Style::new())), ["a ..."]);
    }
}
