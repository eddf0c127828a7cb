package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	urfave "github.com/urfave/cli/v2"
)

// manSection is where the pages go: both programs are for administrators.
const manSection = 8

// manCommand prints the man page; the packages are built with it.
func manCommand() *urfave.Command {
	return &urfave.Command{
		Name:   "man",
		Usage:  "print the man page",
		Hidden: true,
		Action: func(c *urfave.Context) error {
			if _, err := Args(c); err != nil {
				return err
			}
			return WriteMan(c.App.Writer, c.App)
		},
	}
}

// WriteMan writes the man page of a program, in the language of man(7).
func WriteMan(w io.Writer, app *urfave.App) error {
	info, ok := app.Metadata[infoKey].(Info)
	if !ok {
		return fmt.Errorf("%s was not made by this package", app.Name)
	}
	_, err := w.Write(md2man.Render([]byte(manText(app, info))))
	return err
}

// manText is the page in the Markdown that md2man understands.
func manText(app *urfave.App, info Info) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%% %s %d \"\" \"Wayfarer %s\" \"System administration\"\n\n", strings.ToUpper(info.Name), manSection, app.Version)
	fmt.Fprintf(&b, "# NAME\n\n%s - %s\n\n", info.Name, escape(info.Usage))
	fmt.Fprintf(&b, "# SYNOPSIS\n\n**%s** [*options*] *command* [*options*] [*arguments*]\n\n", info.Name)
	if info.Description != "" {
		fmt.Fprintf(&b, "# DESCRIPTION\n\n%s\n\n", escape(info.Description))
	}
	b.WriteString("# OPTIONS\n\n")
	writeFlags(&b, append(append([]urfave.Flag(nil), info.Flags...), urfave.HelpFlag, urfave.VersionFlag))
	b.WriteString("# COMMANDS\n\n")
	writeCommands(&b, info.Name, app.Commands)
	if len(info.Examples) > 0 {
		b.WriteString("# EXAMPLES\n\n")
		writeExamples(&b, info.Examples)
	}
	b.WriteString("# EXIT STATUS\n\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "**%d**\n: %s\n\n", e.code, e.meaning)
	}
	if len(info.Files) > 0 {
		b.WriteString("# FILES\n\n")
		for _, f := range info.Files {
			fmt.Fprintf(&b, "*%s*\n: %s\n\n", escape(f.Path), escape(f.Holds))
		}
	}
	if len(info.SeeAlso) > 0 {
		fmt.Fprintf(&b, "# SEE ALSO\n\n%s\n", escape(strings.Join(info.SeeAlso, ", ")))
	}
	return b.String()
}

// writeCommands writes commands and, below them, their subcommands.
func writeCommands(b *strings.Builder, parent string, commands []*urfave.Command) {
	for _, c := range commands {
		if c.Hidden || c.Name == "help" {
			continue
		}
		name := parent + " " + c.Name
		heading := strings.TrimSpace(name + " " + c.ArgsUsage)
		fmt.Fprintf(b, "### %s\n\n%s.\n\n", escape(heading), escape(capital(strings.TrimSuffix(c.Usage, "."))))
		text, examples := splitDescription(c.Description)
		if text != "" {
			fmt.Fprintf(b, "%s\n\n", escape(text))
		}
		writeFlags(b, c.Flags)
		writeExamples(b, examples)
		writeCommands(b, name, c.Subcommands)
	}
}

func writeFlags(b *strings.Builder, flags []urfave.Flag) {
	for _, f := range flags {
		doc, ok := f.(urfave.DocGenerationFlag)
		if v, can := f.(urfave.VisibleFlag); !ok || can && !v.IsVisible() {
			continue
		}
		var names []string
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, "**"+escape(dashes+n)+"**")
		}
		fmt.Fprintf(b, "%s", strings.Join(names, ", "))
		value, usage := placeholder(doc.GetUsage())
		if doc.TakesValue() {
			fmt.Fprintf(b, " *%s*", escape(value))
		}
		fmt.Fprintf(b, "\n: %s", escape(capital(usage)))
		if text := doc.GetDefaultText(); doc.TakesValue() && text != "" && text != `""` {
			fmt.Fprintf(b, " (default: %s)", escape(text))
		} else if value := doc.GetValue(); doc.TakesValue() && value != "" && value != "0" && value != "0s" {
			fmt.Fprintf(b, " (default: %s)", escape(value))
		}
		b.WriteString("\n\n")
	}
}

// placeholder takes the name of an option's value out of its description, where it
// stands in back quotes.
func placeholder(usage string) (value, text string) {
	parts := strings.SplitN(usage, "`", 3)
	if len(parts) < 3 {
		return "value", usage
	}
	return parts[1], strings.Join(parts, "")
}

func writeExamples(b *strings.Builder, examples []Example) {
	for _, e := range examples {
		if e.Does != "" {
			fmt.Fprintf(b, "%s:\n\n", escape(strings.TrimSuffix(e.Does, ":")))
		}
		fmt.Fprintf(b, "```\n%s\n```\n\n", e.Command)
	}
}

// escape keeps Markdown from reading meaning into plain text.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "`", "\\`", "[", `\[`, "]", `\]`).Replace(s)
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
