// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/migrate"
)

// migrateOptions are the flags of `vpcctl migrate-nad`.
type migrateOptions struct {
	keepIPAM bool
	eni      string
	output   string
}

func (d *door) migrateCommand() *cobra.Command {
	var o migrateOptions
	c := &cobra.Command{
		Use:   "migrate-nad FILE",
		Short: "Print the NetworkAttachmentDefinition that replaces one of upstream's ipvlan",
		Long: `Print the NetworkAttachmentDefinition that replaces one of upstream's ipvlan with whereabouts, host-local or static addresses.

FILE is YAML or JSON, one document or several, or "-" for standard input. The replacement has vpcipvlan, which chooses the ENI by its
device index instead of its link's name, and vpcipam with the ranges, exclusions, gateway, routes and DNS settings of the other
plugin. With --keep-ipam the IPAM plugin stays, and vpcipvlan registers its addresses in EC2. What could not be carried over,
was guessed or means something else now is told on standard error. Nothing is changed in a cluster.

Exit status: 0 all were replaced; 1 one could not be, or FILE cannot be read; 2 the command line is wrong.`,
		Example: `  vpcctl migrate-nad ipvlan-multus.yaml
  kubectl get net-attach-def -A -o yaml | vpcctl migrate-nad - --keep-ipam
  vpcctl migrate-nad nads.yaml --eni '{"subnetTags": {"multus": "1"}}'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return &problem{status: exitUsage, err: fmt.Errorf("%s: %d arguments, want one FILE, or - for standard input", c.CommandPath(), len(args)), hint: "see " + c.CommandPath() + " -h"}
		},
		RunE: func(_ *cobra.Command, args []string) error { return d.migrate(args[0], o) },
	}
	c.Flags().BoolVar(&o.keepIPAM, "keep-ipam", false, "keep the IPAM plugin, and have its addresses registered")
	c.Flags().StringVar(&o.eni, "eni", "", "the \"eni\" `object` to write, in JSON, instead of what the master's name is taken for")
	c.Flags().StringVarP(&o.output, "output", "o", "yaml", "`form`: yaml or json")
	return c
}

// migrate prints the replacements and tells the notes. One that is refused does not hold up the others.
func (d *door) migrate(file string, o migrateOptions) error {
	if o.output != "yaml" && o.output != "json" {
		return &problem{status: exitUsage, err: fmt.Errorf("--output: %q is neither yaml nor json", o.output), hint: "see vpcctl migrate-nad -h"}
	}
	options := migrate.Options{KeepIPAM: o.keepIPAM, ENI: json.RawMessage(o.eni)}
	if o.eni != "" && !json.Valid(options.ENI) {
		return &problem{status: exitUsage, err: fmt.Errorf("--eni: %q is no JSON", o.eni), hint: `write it as in a NAD: --eni '{"deviceIndex": 1}'`}
	}
	documents, err := d.documents(file)
	if err != nil {
		return err
	}
	var refused []error
	printed := 0
	for _, doc := range documents {
		for _, one := range migrate.Document(doc, options) {
			for _, note := range one.Notes {
				fmt.Fprintf(d.stderr, "%s: %s\n", printable(one.Name), printable(note))
			}
			if one.Err != nil {
				refused = append(refused, fmt.Errorf("%s: %w", one.Name, one.Err))
			}
			if one.Object == nil {
				continue
			}
			if err := d.printObject(one.Object, o.output, printed > 0); err != nil {
				return err
			}
			printed++
		}
	}
	if printed == 0 && len(refused) == 0 {
		return fmt.Errorf("%s has no NetworkAttachmentDefinition", file)
	}
	if len(refused) > 0 {
		return &problem{status: exitFailure, err: errors.Join(refused...), hint: "these are not printed, and need a person"}
	}
	return nil
}

// separator stands between the documents of a YAML stream. What follows it on its line is of the next one.
var separator = regexp.MustCompile(`(?m)^---(?:[ \t\r]|$)`)

// documents reads the documents of a file as JSON.
func (d *door) documents(file string) (documents []json.RawMessage, err error) {
	var content []byte
	if file == "-" {
		content, err = io.ReadAll(d.stdin)
	} else {
		content, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the networks: %w", err)
	}
	for i, text := range separator.Split(string(content), -1) {
		some, err := objects(text)
		if err != nil {
			return nil, fmt.Errorf("read document %d of %s: %w", i+1, file, err)
		}
		documents = append(documents, some...)
	}
	return documents, nil
}

// objects reads one document, or several of JSON one after the other, as -o json prints them: YAML would know the first alone.
func objects(text string) (all []json.RawMessage, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	for len(all) > 1 || strings.HasPrefix(strings.TrimSpace(text[d.InputOffset():]), "{") {
		var one json.RawMessage
		switch err = d.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil && len(all) > 0:
			return nil, err
		case err != nil: // YAML has braces, too
			return document(text)
		}
		all = append(all, one)
	}
	return document(text)
}

func document(text string) ([]json.RawMessage, error) {
	doc, err := yaml.YAMLToJSON([]byte(text))
	return []json.RawMessage{doc}, err
}

// printObject prints one document of the output.
func (d *door) printObject(object json.RawMessage, form string, another bool) error {
	var out bytes.Buffer
	if form == "json" {
		if err := json.Indent(&out, object, "", "  "); err != nil {
			return fmt.Errorf("print the network: %w", err)
		}
		out.WriteByte('\n')
	} else {
		text, err := yaml.JSONToYAML(object)
		if err != nil {
			return fmt.Errorf("print the network: %w", err)
		}
		if another {
			out.WriteString("---\n")
		}
		out.Write(text)
	}
	if _, err := d.stdout.Write(out.Bytes()); err != nil {
		return fmt.Errorf("print the network: %w", err)
	}
	return nil
}
