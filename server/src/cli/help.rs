//! The text of `-h`.

/// The usage text for a program of this name.
#[must_use]
pub fn help(program: &str) -> String {
    format!("{}{HELP}", format_args!("\nUsage: {program} [options]\n"))
}

const HELP: &str = "
Server options:
    -a, --addr, --net <host>         Address to listen on (default: 0.0.0.0)
    -p, --port <port>                Port for clients, -1 for a free one (default: 4222)
    -n, --name, --server_name <name> Server name (default: the server id)
    -P, --pid <file>                 File that holds the process id
    -m, --http_port <port>           Port for HTTP monitoring, -1 for a free one (default: off)
    -c, --config <file>              Configuration file
    -t                               Check the configuration file and exit
    -sl, --signal <signal>[=<pid>]   Signal a running server: ldm, stop, quit, term, reopen, reload
                                     (<pid> is a process id or the path of a pid file)
        --client_advertise <string>  host:port told to clients
        --ports_file_dir <dir>       Write <program>_<pid>.ports with the bound URLs to this folder

Logging options:
    -l, --log <file>                 Log to this file (default: standard error)
    -T, --logtime                    Times in log lines (default: true)
        --logtime_utc                Times in UTC instead of local time
    -s, --syslog                     Log to the system log
    -r, --remote_syslog <addr>       Log to a system log server (udp://host:514)
    -D, --debug                      Show debug lines
    -V, --trace                      Trace the protocol
    -VV                              Trace the protocol and internal traffic
    -DV                              Debug and trace
    -DVV                             Debug, and trace including internal traffic
        --log_size_limit <bytes>     Start a new log file at this size (default: never)
        --max_traced_msg_len <bytes> Longest message shown by the trace (default: unlimited)

JetStream options:
    -js, --jetstream                 Switch JetStream on
    -sd, --store_dir <dir>           Data directory (default: ./riverlog-data)
        --ephemeral                  Accept a data directory in memory, which a reboot empties
        --salvage                    Open a damaged log, giving up exactly what is damaged

Authorization options:
        --user <user>                User that clients need
        --pass <password>            Password that clients need
        --auth <token>               Token that clients need

Common options:
    -h, --help                       Show this text
    -v, --version                    Show the version

Known and refused, because this version does not have them: -ms and the --tls flags (TLS),
--routes, --no_advertise, --connect_retries and the --cluster flags (clustering), --profile.
";
