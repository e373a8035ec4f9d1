//! Whether output has colours: `--color`, and the variables of <https://no-color.org> and
//! <https://bixense.com/clicolors>.

use std::ffi::OsString;

use clap::ValueEnum;

/// The value of `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set; with CLICOLOR_FORCE everywhere
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl When {
    /// Whether output has colours, with these environment variables.
    pub(crate) fn is_coloured(
        self,
        variable: impl Fn(&str) -> Option<OsString>,
        is_terminal: bool,
    ) -> bool {
        let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let is_forced = || variable("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
        let is_dumb = || variable("TERM").is_some_and(|value| value == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if is_set("NO_COLOR") => false,
            Self::Auto => is_forced() || (is_terminal && !is_dumb()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_wins_over_variables_over_terminal() {
        use When::{Always, Auto, Never};
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(When, Variables, [bool; 2]); 11] = [
            (Auto, &[], [false, true]),
            (Auto, &[("TERM", "dumb")], [false, false]),
            (Auto, &[("NO_COLOR", "1")], [false, false]),
            (Auto, &[("NO_COLOR", "")], [false, true]),
            (Auto, &[("CLICOLOR_FORCE", "1")], [true, true]),
            (Auto, &[("CLICOLOR_FORCE", "0")], [false, true]),
            (Auto, &[("CLICOLOR_FORCE", "")], [false, true]),
            (Auto, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], [false, false]),
            (Always, &[("NO_COLOR", "1")], [true, true]),
            (Never, &[("CLICOLOR_FORCE", "1")], [false, false]),
            (Never, &[], [false, false]),
        ];
        for (when, variables, expected) in cases {
            let variable = |name: &str| {
                variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into())
            };
            let found = [false, true].map(|terminal| when.is_coloured(variable, terminal));
            assert_eq!(found, expected, "{when:?} {variables:?}");
        }
    }
}
