"""Model families, one folder each; a family's modules never import another family's."""
