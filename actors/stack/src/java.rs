//! Finds a Java that can run the broker.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::Error;

const OLDEST: u32 = 17;

/// `$JAVA_HOME/bin/java` if that is set, otherwise `java`; at least version 17.
pub(crate) fn find() -> Result<PathBuf, Error> {
    let java = match env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home).join("bin").join("java"),
        None => PathBuf::from("java"),
    };
    let output = Command::new(&java).arg("-version").output().map_err(|_| Error::JavaMissing)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match major_version(&said) {
        Some(major) if major >= OLDEST => Ok(java),
        found => Err(Error::JavaTooOld {
            java: java.display().to_string(),
            found: found.map_or_else(|| format!("of unknown version ({})", said.trim()), |major| major.to_string()),
        }),
    }
}

/// Reads `openjdk version "17.0.15" 2025-04-15`, `java version "1.8.0_402"`, `openjdk version "25" …`.
fn major_version(said: &str) -> Option<u32> {
    let quoted = said.lines().find(|line| line.contains(" version \""))?.split('"').nth(1)?;
    let mut numbers = quoted.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn versions_of_all_ages_are_read() {
        assert_eq!(major_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(major_version("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(major_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(major_version("openjdk version \"24-ea\" 2025-03-18"), Some(24));
        assert_eq!(major_version("command not understood"), None);
    }
}
