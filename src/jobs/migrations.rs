//! Migrations of the database's schema, in order. They are listed by hand: sqlx's `migrate!` would build SQLite a second
//! time, for the macro.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, name and statements of every migration. A migration that was released never changes: its checksum is in the
/// databases that have it.
const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "jobs", include_str!("migrations/0001_jobs.sql")),
    (2, "images", include_str!("migrations/0002_images.sql")),
    (3, "studies", include_str!("migrations/0003_studies.sql")),
    (4, "interruptions", include_str!("migrations/0004_interruptions.sql")),
    (5, "trainings", include_str!("migrations/0005_trainings.sql")),
];

pub(super) fn migrator() -> Migrator {
    let migration = |(version, name, statements): (i64, &'static str, &'static str)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, statements.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.into_iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_file_is_listed_under_its_version_and_name() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/jobs/migrations");
        let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        let listed: Vec<String> =
            migrator().iter().map(|one| format!("{:04}_{}.sql", one.version, one.description)).collect();
        assert_eq!(listed, names);
    }
}
