"""From a ticket to a file: export, compression, and a choice by measured files."""
