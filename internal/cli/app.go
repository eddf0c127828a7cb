// Package cli is what the two commands share: the shape of their help, exit
// codes, errors, tables and JSON, questions, shell completion and man page.
//
// The rules: what was asked for goes to standard output and nothing else does;
// errors and hints go to standard error; questions go to the terminal, so that
// output can be piped and scripts never hang on one.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/spelling"
)

// Info describes a program.
type Info struct {
	Name        string // "vpn-server"
	Usage       string // one line: what it is
	Description string
	Examples    []Example
	Files       []File
	SeeAlso     []string // man pages, such as "vpn-client(8)"
	Flags       []urfave.Flag
	Commands    []*urfave.Command
}

// Example is a command line with what it does.
type Example struct {
	Command, Does string
}

// File is a file that the program uses, for its man page.
type File struct {
	Path, Holds string
}

// infoKey is where an App keeps its Info.
const infoKey = "wayfarer-info"

// New makes a program: its commands, and those that every program has
// (completion, man). Commands whose description was made with Describe show
// their examples in the help and in the man page.
func New(info Info) *urfave.App {
	app := &urfave.App{
		Name:                 info.Name,
		Usage:                info.Usage,
		Description:          wrap(info.Description),
		Version:              Version(),
		Flags:                info.Flags,
		Commands:             append(info.Commands, completionCommand(info.Name), manCommand()),
		EnableBashCompletion: true,
		ExitErrHandler:       func(*urfave.Context, error) {}, // Main has the last word
		OnUsageError:         usageError,
		Action:               needCommand,
		Metadata:             map[string]any{infoKey: info},
	}
	app.CustomAppHelpTemplate = urfave.AppHelpTemplate + examplesTemplate(info.Examples)
	prepare(app.Commands)
	return app
}

// prepare gives all commands the same manners.
func prepare(commands []*urfave.Command) {
	for _, c := range commands {
		c.OnUsageError = usageError
		prepare(c.Subcommands)
		base := urfave.SubcommandHelpTemplate
		if len(c.Subcommands) == 0 {
			base = urfave.CommandHelpTemplate
			// Otherwise an argument that happens to be "help" or "h" is taken for a command.
			c.HideHelpCommand = true
		} else if c.Action == nil {
			c.Action = needCommand
		}
		c.CustomHelpTemplate = helpTemplate(base, c.Description)
		demandRequired(c)
		for _, f := range c.Flags {
			if b, ok := f.(*urfave.BoolFlag); ok {
				b.DisableDefaultText = true // "(default: false)" says nothing
			}
		}
	}
}

// demandRequired checks the required options of a command in our own words: the
// library would print the whole help to standard output.
func demandRequired(c *urfave.Command) {
	var required []string
	for _, f := range c.Flags {
		v := reflect.Indirect(reflect.ValueOf(f)).FieldByName("Required")
		if v.IsValid() && v.Kind() == reflect.Bool && v.Bool() {
			v.SetBool(false)
			required = append(required, f.Names()[0])
		}
	}
	action := c.Action
	if len(required) == 0 || action == nil {
		return
	}
	c.Action = func(ctx *urfave.Context) error {
		for _, name := range required {
			if !ctx.IsSet(name) {
				return Usagef("--%s is missing", name).WithHint("Run %s --help.", helpName(ctx))
			}
		}
		return action(ctx)
	}
}

// helpTemplate is the help page of a command: the library's, with examples.
func helpTemplate(base, description string) string {
	text, examples := splitDescription(description)
	base = strings.ReplaceAll(base, `{{template "descriptionTemplate" .}}`, indent(literal(wrap(text))))
	if text == "" {
		base = strings.ReplaceAll(base, `{{if .Description}}`, `{{if false}}`)
	}
	return base + examplesTemplate(examples)
}

// Main runs a program with the arguments of the process and returns its exit code.
// The context ends with SIGINT and SIGTERM; a second one ends the process.
func Main(app *urfave.App) int {
	ctx, stop := interruptible()
	defer stop()
	return Run(ctx, app, os.Args)
}

// secondSignal is how long after the first signal another one is the same wish: timeout(1)
// and sudo(8) send to the process and to its group. What ends in order takes less.
const secondSignal = 2 * time.Second

// interruptible is a context that ends with the first signal. Later ones end the process.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(secondSignal, stop) })
	return ctx, stop
}

// Run runs a program and returns its exit code. Flags may stand anywhere on the
// command line.
func Run(ctx context.Context, app *urfave.App, args []string) int {
	err := app.RunContext(ctx, arrange(app, args))
	if err == nil {
		return ExitOK
	}
	w := app.ErrWriter
	if w == nil {
		w = os.Stderr
	}
	PrintError(w, err)
	return ExitCode(err)
}

// usageError turns a complaint about flags into an error with a way out.
func usageError(c *urfave.Context, err error, _ bool) error {
	message := strings.TrimPrefix(err.Error(), "flag provided but not defined: ")
	if message != err.Error() {
		return unknownFlag(c, message)
	}
	return Usagef("%s", message).WithHint("Run %s --help.", helpName(c))
}

// unknownFlag names the flag that was probably meant.
func unknownFlag(c *urfave.Context, name string) error {
	e := Usagef("unknown option %s", doubleDash(name))
	flags := c.App.VisibleFlags()
	if c.Command != nil {
		flags = append(c.Command.VisibleFlags(), flags...)
	}
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	if near, ok := spelling.Nearest(strings.TrimLeft(name, "-"), names); ok && len(near) > 1 {
		return e.WithHint("Did you mean --%s? Run %s --help for all options.", near, helpName(c))
	}
	return e.WithHint("Run %s --help for all options.", helpName(c))
}

// doubleDash undoes what the flag package does to long options.
func doubleDash(name string) string {
	if strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "--") && len(name) > 2 {
		return "-" + name
	}
	return name
}

// needCommand is the action of a program or command that only has subcommands.
func needCommand(c *urfave.Context) error {
	name := c.Args().First()
	if name == "" {
		var err error
		if c.Command == nil || c.Lineage()[1].Command == nil {
			err = urfave.ShowAppHelp(c)
		} else {
			err = urfave.ShowSubcommandHelp(c)
		}
		if err != nil {
			return err
		}
		return Usagef("which command?").WithHint("The list above names them.")
	}
	e := Usagef("unknown command %q", name)
	var names []string
	for _, sub := range c.Command.VisibleCommands() {
		names = append(names, sub.Name)
	}
	if near, ok := spelling.Nearest(name, names); ok {
		return e.WithHint("Did you mean %q? Run %s --help for all commands.", near, helpName(c))
	}
	return e.WithHint("Run %s --help for all commands.", helpName(c))
}

func helpName(c *urfave.Context) string {
	if c.Command != nil && c.Command.HelpName != "" {
		return c.Command.HelpName
	}
	return c.App.Name
}

// Args checks the number of arguments of a command and returns them; names are
// for the error, such as "USER". A name in brackets is optional, one that ends in
// three dots stands for any number.
func Args(c *urfave.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	least, most := 0, len(names)
	for _, name := range names {
		if !strings.HasPrefix(name, "[") {
			least++
		}
		if strings.Contains(name, "...") {
			most = max(most, len(args))
		}
	}
	if len(args) >= least && len(args) <= most {
		return args, nil
	}
	usage := strings.TrimSpace(helpName(c) + " " + strings.Join(names, " "))
	if len(args) < least {
		return nil, Usagef("%s is missing", names[len(args)]).WithHint("Usage: %s", usage)
	}
	return nil, Usagef("unexpected argument %q", args[most]).WithHint("Usage: %s", usage)
}

// exampleMark separates the description of a command from its examples.
const exampleMark = "\x00"

// Describe makes the description of a command with examples.
func Describe(text string, examples ...Example) string {
	for _, e := range examples {
		text += exampleMark + e.Command + exampleMark + e.Does
	}
	return text
}

// splitDescription undoes Describe.
func splitDescription(description string) (string, []Example) {
	parts := strings.Split(description, exampleMark)
	var examples []Example
	for i := 1; i+1 < len(parts); i += 2 {
		examples = append(examples, Example{parts[i], parts[i+1]})
	}
	return parts[0], examples
}

// examplesTemplate is the part of a help page with the examples.
func examplesTemplate(examples []Example) string {
	if len(examples) == 0 {
		return ""
	}
	b := strings.Builder{}
	b.WriteString("\nEXAMPLES:\n")
	for _, e := range examples {
		if e.Does != "" {
			fmt.Fprintf(&b, "   # %s\n", literal(e.Does))
		}
		fmt.Fprintf(&b, "   %s\n", indent(literal(e.Command)))
	}
	return b.String()
}

// literal keeps text/template from reading a text as a template.
func literal(s string) string { return strings.ReplaceAll(s, "{{", `{{"{{"}}`) }

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n   ") }

// lineWidth is how wide help texts are, with their margin.
const lineWidth = 80

// wrap breaks the lines of a description. Lines that begin with a blank stay as
// they are.
func wrap(s string) string {
	const margin = 3
	var out []string
	for _, line := range strings.Split(s, "\n") {
		if strings.HasPrefix(line, " ") || line == "" {
			out = append(out, line)
			continue
		}
		current := ""
		for _, word := range strings.Fields(line) {
			if current != "" && len(current)+1+len(word) > lineWidth-margin {
				out = append(out, current)
				current = ""
			}
			current = strings.TrimPrefix(current+" "+word, " ")
		}
		out = append(out, current)
	}
	return strings.Join(out, "\n")
}
