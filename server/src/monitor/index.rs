//! `/`: a page that leads to the others (MON-001).

use crate::cli::VERSION;

const LINKS: [(&str, &str); 5] = [
    ("varz", "General"),
    ("jsz", "JetStream"),
    ("connz", "Connections"),
    ("subsz", "Subscriptions"),
    ("healthz", "Health probe"),
];

/// The page. Links are relative, so they work behind a base path and behind a proxy.
pub(super) fn page(server_name: &str) -> String {
    let links: String = LINKS
        .iter()
        .map(|(path, text)| {
            format!("<li><a href=\"./{path}\">{text}</a> <code>/{path}</code></li>\n")
        })
        .collect();
    let name = server_name.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Riverlog {name}\
         </title>\n<style>body {{ font-family: system-ui, sans-serif; margin: 2rem }} \
         code {{ color: #777 }}</style></head>\n<body>\n<h1>Riverlog {VERSION}</h1>\n<p>{name}</p>\n\
         <ul>\n{links}</ul>\n</body>\n</html>\n"
    )
}
