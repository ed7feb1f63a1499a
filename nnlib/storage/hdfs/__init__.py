"""Files in HDFS: over WebHDFS, through libhdfs, or by the program ``hadoop fs``."""
