// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package docs holds the documents to what they speak of: links lead somewhere, make targets, flags and configuration
// keys exist and are all listed, every example is accepted by the code that would read it, and the tables that are
// printed from code are the code's. Nobody imports it. Whether a document is good is for people to say.
package docs
