"""The document analyzer: any file in, five kinds of answers out, each with quotes that were looked up."""
