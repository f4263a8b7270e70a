//! Progress of studies on the terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use proxygrad::study::Progress;

/// Progress display: a bar on a terminal, otherwise a line per minute.
pub(super) struct ProgressDisplay {
    pub(super) bar: ProgressBar,
    terminal: bool,
    last_line: Instant,
}

impl ProgressDisplay {
    pub(super) fn new(runs: usize) -> Self {
        let bar = ProgressBar::new(runs as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed} so far, {eta} left)") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar, terminal: std::io::stderr().is_terminal(), last_line: Instant::now() }
    }

    pub(super) fn show(&mut self, progress: &Progress<'_>) -> bool {
        self.bar.set_position(progress.done as u64);
        if self.bar.message() != progress.now {
            self.bar.set_message(progress.now.to_owned());
        }
        if !self.terminal && self.last_line.elapsed() > Duration::from_secs(60) {
            self.last_line = Instant::now();
            eprintln!("{:.0} of {} runs: {}", progress.done, progress.total, progress.now);
        }
        true
    }
}
