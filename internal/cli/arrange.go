package cli

import (
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// arrange moves options in front of the arguments, where the library wants them,
// and options of the program in front of the command. People write
// "disconnect 7 --json" and "status --config x", and both should work. A bare
// "--" ends the options as usual.
func arrange(app *urfave.App, args []string) []string {
	const completion = "--generate-bash-completion"
	if len(args) < 2 || args[len(args)-1] == completion {
		return args
	}
	commands := app.Commands
	var command *urfave.Command
	globals, path, local, positional := []string{}, []string{}, []string{}, []string{}
	rest := args[1:]
	for len(rest) > 0 {
		arg := rest[0]
		if arg == "--" {
			positional = append(positional, rest[1:]...)
			break
		}
		if len(arg) > 1 && arg[0] == '-' {
			var option []string
			option, rest = takeOption(app, command, rest)
			if command != nil && !isOwn(command, arg) && isFlag(app.Flags, arg) {
				globals = append(globals, option...)
			} else if command == nil {
				globals = append(globals, option...)
			} else {
				local = append(local, option...)
			}
			continue
		}
		rest = rest[1:]
		next := find(commands, arg)
		if next == nil || len(positional) > 0 {
			positional = append(positional, arg)
			continue
		}
		if next.SkipFlagParsing {
			path = append(append(path, local...), arg)
			return slices.Concat(args[:1], globals, path, rest)
		}
		// Options of a group belong to the group, before the next name.
		path, local = append(append(path, local...), arg), nil
		command, commands = next, next.Subcommands
	}
	out := slices.Concat(args[:1], globals, path, local)
	if len(positional) > 0 && slices.ContainsFunc(positional, func(s string) bool { return len(s) > 1 && s[0] == '-' }) {
		out = append(out, "--")
	}
	return append(out, positional...)
}

// takeOption splits an option, and its value if it has one, off the arguments.
func takeOption(app *urfave.App, command *urfave.Command, rest []string) (option, remaining []string) {
	flags := app.Flags
	if command != nil && isOwn(command, rest[0]) {
		flags = command.Flags
	}
	if strings.Contains(rest[0], "=") || len(rest) == 1 || !takesValue(flags, rest[0]) {
		return rest[:1:1], rest[1:]
	}
	return rest[:2:2], rest[2:]
}

func isOwn(command *urfave.Command, arg string) bool { return isFlag(command.Flags, arg) }

func isFlag(flags []urfave.Flag, arg string) bool { return lookup(flags, arg) != nil }

func takesValue(flags []urfave.Flag, arg string) bool {
	f, ok := lookup(flags, arg).(urfave.DocGenerationFlag)
	return ok && f.TakesValue()
}

// lookup finds the flag that an argument such as "--config=x" sets.
func lookup(flags []urfave.Flag, arg string) urfave.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func find(commands []*urfave.Command, name string) *urfave.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}
