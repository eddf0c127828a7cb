package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// Complete makes a command offer values for its arguments in the shell, such as
// the names of profiles. Errors of the function should be swallowed: a key press
// is no place for them.
func Complete(c *urfave.Command, values func(*urfave.Context) []string) *urfave.Command {
	options := urfave.DefaultCompleteWithFlags(c)
	c.BashComplete = func(ctx *urfave.Context) {
		if n := len(os.Args); n > 2 && strings.HasPrefix(os.Args[n-2], "-") {
			options(ctx)
			return
		}
		for _, v := range values(ctx) {
			fmt.Fprintln(ctx.App.Writer, Clean(v))
		}
	}
	return c
}

// completionCommand prints the script that teaches a shell our commands.
func completionCommand(name string) *urfave.Command {
	return &urfave.Command{
		Name:      "completion",
		Usage:     "print the completion script for a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: Describe("The packages install these scripts; this command is for everybody else.",
			Example{"source <(" + name + " completion bash)", "Try it in the running bash"},
			Example{name + " completion fish > ~/.config/fish/completions/" + name + ".fish", "Keep it, for fish"}),
		BashComplete: func(c *urfave.Context) { fmt.Fprintln(c.App.Writer, "bash\nzsh\nfish") },
		Action: func(c *urfave.Context) error {
			args, err := Args(c, "SHELL")
			if err != nil {
				return err
			}
			switch args[0] {
			case "bash":
				return writeScript(c.App.Writer, bashScript, c.App.Name)
			case "zsh":
				return writeScript(c.App.Writer, zshScript, c.App.Name)
			case "fish":
				return writeScript(c.App.Writer, fishScript, c.App.Name)
			}
			return Usagef("no completion for the shell %q", args[0]).WithHint("There are scripts for bash, zsh and fish.")
		},
	}
}

func writeScript(w io.Writer, script, name string) error {
	replacer := strings.NewReplacer("NAME", name, "IDENT", strings.ReplaceAll(name, "-", "_"))
	_, err := io.WriteString(w, replacer.Replace(script))
	return err
}

// The scripts ask the program itself, which knows its commands and options, and
// for some arguments the daemon's values.

const bashScript = `# bash completion for NAME
_IDENT_complete() {
	local cur="${COMP_WORDS[COMP_CWORD]}" IFS=$'\n'
	local -a words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ "$cur" == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _IDENT_complete NAME
`

const zshScript = `#compdef NAME
_NAME() {
	local -a words_before values
	words_before=("${(@)words[1,CURRENT-1]}")
	[[ "${words[CURRENT]}" == -* ]] && words_before+=("${words[CURRENT]}")
	values=("${(@f)$("${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
	if [[ -n "${values[1]}" ]]; then
		compadd -a values
	else
		_files
	fi
}
if [[ "${funcstack[1]}" == "_NAME" ]]; then
	_NAME "$@"
else
	compdef _NAME NAME
fi
`

const fishScript = `# fish completion for NAME
function __IDENT_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	if string match -q -- '-*' $current
		set -a words $current
	end
	$words --generate-bash-completion 2>/dev/null
end
complete -c NAME -f -a '(__IDENT_complete)'
`
