//! Yields aliases as the index spells them.

/// An alias as the index spells it, with underscores outside brackets; `None` if its brackets are unbalanced.
pub(super) fn normal_alias(alias: &str) -> Option<String> {
    let mut normal = String::with_capacity(alias.len());
    let mut inside = false;
    for char in alias.chars() {
        match char {
            '[' => inside = true,
            ']' if !inside => return None,
            ']' => inside = false,
            _ => {}
        }
        normal.push(if char == '-' && !inside { '_' } else { char });
    }
    (!inside).then_some(normal)
}

/// Module and normalised alias of each `NAME.alias=VALUE` in `modules.builtin.modinfo`.
pub(super) fn aliases_of_builtin(modinfo: &str) -> Vec<(String, String)> {
    modinfo
        .split('\0')
        .filter_map(|entry| {
            let (name, rest) = entry.split_once('.')?;
            let alias = rest.strip_prefix("alias=").filter(|alias| !alias.is_empty())?;
            Some((name.to_owned(), normal_alias(alias)?)).filter(|(name, _)| !name.is_empty())
        })
        .collect()
}
