"""Run every benchmark: python -m benchmarks"""

from benchmarks import bench_resolution, bench_transaction

if __name__ == "__main__":
    bench_transaction.main(2000)
    bench_resolution.main()
