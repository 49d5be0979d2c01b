//! `holdfast config`: the effective configuration.

use holdfast_platform::Config;

/// Prints every key with its value and where that came from.
pub fn run(config: &Config, json: bool) -> u8 {
    if json {
        for line in config.render() {
            let object = serde_json::json!({
                "key": line.key, "value": line.value, "source": line.source, "variable": line.variable, "help": line.help,
            });
            println!("{object}");
        }
        return 0;
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["key", "value", "from", "variable"]);
    for line in config.render() {
        let value = line.value.unwrap_or_else(|| "-".to_owned());
        table.add_row([line.key.to_owned(), value, line.source, line.variable]);
    }
    println!("{table}");
    0
}
