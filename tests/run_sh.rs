//! `run.sh`: which checkout it works in, which program it runs, and whose nodes it ends. It builds nothing
//! here, since a script takes the place of cargo.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use support::cluster::{Cluster, Plan, THREE};
use support::folder::temporary;
use support::process;

/// A checkout that holds only `run.sh`, and a script in the place of cargo. Dropping it ends its nodes and
/// removes it.
struct Checkout(PathBuf);

impl Checkout {
    /// A checkout in which cargo reports that it has built this program.
    fn with_program(program: &Path) -> Checkout {
        let folder = temporary();
        fs::create_dir_all(folder.join("bin")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run.sh");
        fs::copy(script, folder.join("run.sh")).unwrap();
        let message = |executable: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"executable\":{executable},\"fresh\":true}}"
            )
        };
        let messages = [message("null"), message(&format!("{program:?}"))].join("\n");
        let cargo = format!("#!/bin/sh\ncat <<'END'\n{messages}\nEND\n");
        write_script(&folder.join("bin/cargo"), &cargo);
        Checkout(folder)
    }

    fn new() -> Checkout {
        Checkout::with_program(Path::new(env!("CARGO_BIN_EXE_dynamo")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The command that runs the script at this path with this argument.
    fn command(&self, script: &Path, argument: &str) -> Command {
        let bin = self.path("bin").into_os_string().into_string().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .arg(script)
            .arg(argument)
            .env("PATH", format!("{bin}:{path}"))
            .env_remove("DYNAMO_CLUSTER")
            .current_dir(&self.0);
        command
    }

    /// Runs `run.sh` for a cluster. Returns what it prints.
    fn run(&self, argument: &str, cluster: &Cluster) -> String {
        let mut command = self.command(&self.path("run.sh"), argument);
        output_of(command.env("DYNAMO_CLUSTER", cluster.file(5554)))
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        for file in fs::read_dir(self.path("target/cluster-5554"))
            .into_iter()
            .flatten()
        {
            let file = file.unwrap().path();
            let is_pid = file.extension().is_some_and(|extension| extension == "pid");
            let text = fs::read_to_string(&file).unwrap_or_default();
            if let (true, Ok(pid)) = (is_pid, text.trim().parse()) {
                let runs_here =
                    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.0);
                if let (true, Some(pid)) = (runs_here, Pid::from_raw(pid)) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// All that a command prints, to standard output and to standard error.
fn output_of(command: &mut Command) -> String {
    let output = process::run(command, "");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn down_in_a_copied_checkout_leaves_the_nodes_of_the_other_alone_however_narrow_the_terminal_is() {
    let cluster = Plan::of(&THREE).lay_out();
    let first = Checkout::new();
    let output = first.run("up", &cluster);
    assert!(
        output.contains("3 of 3 up, every key has 3 copies"),
        "{output}"
    );
    let second = Checkout::new();
    let copied = Command::new("cp")
        .arg("-r")
        .args([first.path("target"), second.path("")])
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(second.run("down", &cluster), "no node is running\n");
    for id in THREE {
        assert_eq!(cluster.client(id).call("PING").unwrap(), "PONG");
    }
    // A build replaces the file of the program that runs.
    fs::remove_file(first.path("target/release/dynamo")).unwrap();
    let mut down = first.command(&first.path("run.sh"), "down");
    down.env("DYNAMO_CLUSTER", cluster.file(5554))
        .env("COLUMNS", "20");
    let output = output_of(&mut down);
    assert!(output.starts_with("ended 3 nodes"), "{output}");
}

#[test]
fn a_link_to_the_script_leads_to_its_checkout_and_a_cdpath_leads_nowhere_else() {
    let (own, other) = (Checkout::new(), Checkout::new());
    let log = |checkout: &Checkout, text: &str| {
        fs::create_dir_all(checkout.path("target/cluster")).unwrap();
        fs::write(checkout.path("target/cluster/5554.log"), text).unwrap();
    };
    log(&own, "its own\n");
    let expected = "== target/cluster/5554.log\nits own\n";
    let link = other.path("dyn");
    symlink(own.path("run.sh"), &link).unwrap();
    assert_eq!(output_of(&mut other.command(&link, "logs")), expected);
    // There is a folder of the same name where CDPATH looks.
    let name = own.0.file_name().unwrap();
    fs::create_dir_all(other.path("").join(name)).unwrap();
    let mut by_name = own.command(&Path::new(name).join("run.sh"), "logs");
    by_name
        .current_dir(own.0.parent().unwrap())
        .env("CDPATH", other.path(""));
    assert_eq!(output_of(&mut by_name), expected);
}

#[test]
fn the_program_that_cargo_has_built_is_run_wherever_its_configuration_puts_it() {
    let folder = Checkout::new();
    let program = folder.path("target/some-target/release/dynamo");
    let checkout = Checkout::with_program(&program);
    write_script(&program, "#!/bin/sh\necho the new program: $1\nexit 1\n");
    let old = checkout.path("target/release/dynamo");
    write_script(&old, "#!/bin/sh\necho the old program: $1\nexit 1\n");
    output_of(&mut checkout.command(&checkout.path("run.sh"), "up"));
    let output = output_of(&mut checkout.command(&checkout.path("run.sh"), "status"));
    assert_eq!(output, "the new program: status\n");
}

#[test]
fn two_spellings_of_one_cluster_file_are_one_cluster() {
    let checkout = Checkout::new();
    let state = checkout.path("target/cluster-x");
    fs::create_dir_all(&state).unwrap();
    let file = checkout.path("x.json");
    fs::write(state.join("file"), format!("{}\n", file.display())).unwrap();
    let down = |file: &str| {
        let mut command = checkout.command(&checkout.path("run.sh"), "down");
        output_of(command.env("DYNAMO_CLUSTER", file))
    };
    for spelling in ["x.json", "./x.json", "bin/../x.json"] {
        assert_eq!(down(spelling), "no node is running\n", "{spelling}");
    }
    assert!(down("bin/x.json").contains("give your cluster file another name"));
}
