//! Which key does what. Pure; the list that the screen shows is made of the same table's words.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::state::{Action, Screen, Sort, State};

/// Lines that page keys move by.
const PAGE: isize = 10;

/// The keys, for people: what to press and what it does.
pub const HELP: &[(&str, &str)] = &[
    ("q", "quit"),
    ("up down", "choose a device, scroll"),
    ("enter", "show the device: operations, histogram"),
    ("esc", "back"),
    ("s", "sort by the next column"),
    ("9 5 i b f o n", "sort by p99, p50, IOPS, MB/s, in flight, oldest, name"),
    ("r", "reverse the order"),
    ("g", "graph p99 or IOPS"),
    ("space", "hold the display, go on"),
    ("left right", "one window back, on"),
    ("+ -", "replay faster, slower"),
    ("tab", "of a device: next operation"),
    ("a", "of a device: one window, or all kept"),
    ("?", "show or hide these keys"),
];

/// What `key` asks for where `state` is; none: nothing.
#[must_use]
pub fn action(key: KeyEvent, state: &State) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            _ => None,
        };
    }
    let shared = match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Char(' ') => Action::Pause,
        KeyCode::Left => Action::StepBack,
        KeyCode::Right => Action::StepOn,
        KeyCode::Char('+' | '=') => Action::Faster,
        KeyCode::Char('-' | '_') => Action::Slower,
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::PageUp => Action::Move(-PAGE),
        KeyCode::PageDown => Action::Move(PAGE),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Enter => Action::Enter,
        other => return of_screen(other, &state.screen),
    };
    Some(shared)
}

fn of_screen(key: KeyCode, screen: &Screen) -> Option<Action> {
    let KeyCode::Char(letter) = key else {
        let tab = key == KeyCode::Tab && matches!(screen, Screen::Device(_));
        return tab.then_some(Action::NextOperation);
    };
    if let Screen::Device(_) = screen {
        return (letter == 'a').then_some(Action::Range);
    }
    Some(match letter {
        's' => Action::NextSort,
        'r' => Action::Reverse,
        'g' => Action::NextGraph,
        '9' => Action::Sort(Sort::P99),
        '5' => Action::Sort(Sort::P50),
        'i' => Action::Sort(Sort::Iops),
        'b' => Action::Sort(Sort::Megabytes),
        'f' => Action::Sort(Sort::Inflight),
        'o' => Action::Sort(Sort::Oldest),
        'n' => Action::Sort(Sort::Name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::state::Details;
    use super::*;

    /// Every key that the help names does something somewhere, and nothing is sorted by a key
    /// that the help does not name.
    #[test]
    fn the_help_is_true() {
        let device = State { screen: Screen::Device(Details::default()), ..State::default() };
        let states = [State::default(), device];
        let code = |word: &str| match word {
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "left" => KeyCode::Left,
            "right" => KeyCode::Right,
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "space" => KeyCode::Char(' '),
            word => KeyCode::Char(word.chars().next().unwrap()),
        };
        let does = |code| {
            let key = KeyEvent::new(code, KeyModifiers::NONE);
            states.iter().find_map(|state| action(key, state))
        };
        let mut named = String::new();
        for (keys, _) in HELP {
            for word in keys.split(' ') {
                assert!(does(code(word)).is_some(), "{word}");
                named.push_str(word);
            }
        }
        for letter in 'a'..='z' {
            if let Some(Action::Sort(sort)) = does(KeyCode::Char(letter)) {
                assert!(named.contains(letter), "{sort:?}");
            }
        }
    }

    #[test]
    fn control_keys_and_releases() {
        let state = State::default();
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(action(control('c'), &state), Some(Action::Quit));
        assert_eq!(action(control('z'), &state), Some(Action::Suspend));
        assert_eq!(action(control('s'), &state), None);
        let mut release = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        release.kind = KeyEventKind::Release;
        assert_eq!(action(release, &state), None);
    }
}
