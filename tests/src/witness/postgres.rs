//! Sessions in PostgreSQL, where each gives itself a name.

use tokio_postgres::{Config, NoTls};

use super::{ANSWER_WITHIN, Counts, Shared, WitnessOptions, sample};

const QUESTION: &str = "select application_name, count(*) from pg_stat_activity \
     where datname = $1 and backend_type = 'client backend' group by application_name";

/// Looks until told to stop, or until the connection breaks.
pub(super) async fn look(shared: &Shared, options: &WitnessOptions) -> anyhow::Result<()> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(options.port).user("postgres").dbname("postgres");
    config.application_name("witness").connect_timeout(ANSWER_WITHIN);
    let (client, connection) = tokio::time::timeout(ANSWER_WITHIN, config.connect(NoTls)).await??;
    // The connection ends with the client; its error is the error of the question.
    let connection = tokio::spawn(connection);
    let result = async {
        let question = tokio::time::timeout(ANSWER_WITHIN, client.prepare(QUESTION)).await??;
        let ask = async || {
            let mut seen = Counts::new();
            for row in client.query(&question, &[&options.database]).await? {
                let application: String = row.try_get::<_, Option<String>>(0)?.unwrap_or_default();
                let count: i64 = row.try_get(1)?;
                seen.insert(application, usize::try_from(count).unwrap_or(0));
            }
            Ok(seen)
        };
        sample(shared, options.period, ask).await
    };
    let result = result.await;
    drop(client);
    if tokio::time::timeout(ANSWER_WITHIN, connection).await.is_err() {
        anyhow::bail!("the connection does not end");
    }
    result
}
