"""From a ticket to a file: export, and a choice by measured files."""
